"""What a conversation is: a list of messages, each with a role and a text."""

from typing import Any

from megatron_biollm.config import UserError

ROLES = ("system", "user", "assistant")


def check_messages(messages: Any) -> None:
    """Checks that these are messages that a chat template can write.

    Raises:
        UserError: not a list of messages, an unknown role, content that is no text or empty.
    """
    if not isinstance(messages, list) or not messages:
        raise UserError(
            f"messages is {_short(messages)}; it must be a list of at least one message, "
            '{"role": ..., "content": ...}'
        )
    for number, message in enumerate(messages, start=1):
        _check_message(message, f"message {number} of {len(messages)}")


def check_conversation(messages: Any) -> None:
    """`check_messages`, and that there is something to learn from.

    Raises:
        UserError: as there, or no turn of the assistant.
    """
    check_messages(messages)
    if not any(message["role"] == "assistant" for message in messages):
        raise UserError(
            "a conversation has no message of role assistant, so there is nothing to learn from "
            "it; add the answer, or leave the conversation out"
        )


def check_prompt(messages: Any) -> None:
    """`check_messages`, and that it is the assistant's turn.

    Raises:
        UserError: as there, or the assistant has the last word already.
    """
    check_messages(messages)
    if messages[-1]["role"] == "assistant":
        raise UserError(
            "a prompt ends with a message of role assistant, and it is the assistant that is to "
            "answer; end it with the user's message"
        )


def _check_message(message: Any, which: str) -> None:
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
        raise UserError(f'{which} is {_short(message)}; it must have "role" and "content"')
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise UserError(f"{which} has role {_short(role)}; it must be one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise UserError(f"{which} ({role}) has content {_short(content)}; it must be text")
    if not content.strip():
        raise UserError(
            f"{which} ({role}) is empty; give it text, or leave it (or the conversation) out"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
