"""What a conversation is: a list of messages, each with a role and a text."""

from typing import Any

from megatron_biollm.config import UserError

ROLES = ("system", "user", "assistant")


class ConversationError(UserError):
    """What is wrong with a conversation. reason: the rule alone, alike for all that break it."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def check_messages(messages: Any) -> None:
    """Checks that these are messages that a chat template can write.

    Raises:
        ConversationError: not a list of messages, an unknown role, content that is empty or no
            text.
    """
    if not isinstance(messages, list) or not messages:
        raise ConversationError(
            f"messages is {_short(messages)}; it must be a list of at least one message, "
            '{"role": ..., "content": ...}',
            "not a list of messages",
        )
    for number, message in enumerate(messages, start=1):
        _check_message(message, f"message {number} of {len(messages)}")


def check_conversation(messages: Any) -> None:
    """`check_messages`, and that there is something to learn from.

    Raises:
        ConversationError: as there, or no turn of the assistant.
    """
    check_messages(messages)
    if not any(message["role"] == "assistant" for message in messages):
        raise ConversationError(
            "a conversation has no message of role assistant, so there is nothing to learn from "
            "it; add the answer, or leave the conversation out",
            "no message of role assistant",
        )


def check_prompt(messages: Any) -> None:
    """`check_messages`, and that it is the assistant's turn.

    Raises:
        ConversationError: as there, or the assistant has the last word already.
    """
    check_messages(messages)
    if messages[-1]["role"] == "assistant":
        raise ConversationError(
            "a prompt ends with a message of role assistant, and it is the assistant that is to "
            "answer; end it with the user's message",
            "nothing to answer",
        )


def _check_message(message: Any, which: str) -> None:
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
        raise ConversationError(
            f'{which} is {_short(message)}; it must have "role" and "content"',
            "a message without role or content",
        )
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise ConversationError(
            f"{which} has role {_short(role)}; it must be one of {', '.join(ROLES)}",
            f"unknown role {_short(role)}",
        )
    if not isinstance(content, str):
        raise ConversationError(
            f"{which} ({role}) has content {_short(content)}; it must be text",
            "a message's content is not text",
        )
    if not _is_unicode(content):
        raise ConversationError(
            f"{which} ({role}) has half of a character in it (a lone surrogate, in JSON \\ud800 to "
            f"\\udfff), which no tokenizer reads; leave it out",
            "a message has half of a character",
        )
    if not content.strip():
        raise ConversationError(
            f"{which} ({role}) is empty; give it text, or leave it (or the conversation) out",
            "a message is empty",
        )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
