"""A chat template is tried out before a run begins with it."""

from typing import Any

from megatron_biollm.config import UserError
from megatron_biollm.log import get_logger
from megatron_biollm.tokenizer.template_source import DEFAULT

# First characters that tokenizers treat differently.
_ANSWERS = ("Beta 12.", "3 mg", "(see below)", "- one\n- two", "東京 🧬", "β-blocker")
logger = get_logger(__name__)


def check_template(template: Any) -> None:
    """Tries a template on conversations with and without a system message, of one and two turns.

    Raises:
        UserError: the ids do not begin with one BOS, a text does not come back from them, the
            learnt tokens are not the answer and its stop token, or the prompt is not the
            beginning of the conversation.
    """
    conversations = [*_conversations("Alpha", *_ANSWERS)]
    for messages in conversations:
        prompt = template.encode_prompt(messages[:-1])
        if template.trains:
            _check_learnt(template, messages, prompt)
    if _can_be_forged(template):
        logger.warning(
            "chat template %s: a message that holds the text between two turns looks like two "
            "messages; name the markers in the template, {#- role markers: ... -#}, and they are "
            "broken up in messages (the built-in %s does)", template.name, DEFAULT,
        )  # fmt: skip


def _conversations(question: str, *answers: str) -> list[list[dict[str, str]]]:
    one = [[_turn("user", question), _turn("assistant", answer)] for answer in answers]
    two = [one[0] + last for last in one]
    return one + two


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _check_learnt(template: Any, messages: list[dict[str, str]], prompt: list[int]) -> None:
    chat = template.encode(messages)
    if chat.tokens[: len(prompt)] != prompt:
        raise UserError(
            f"chat template {template.name}: the ids of a prompt are not the beginning of those of "
            f"the answered conversation, so the model would be asked in a form it never saw; with "
            f"add_generation_prompt the template must write exactly what stands before the "
            f"{{% generation %}} mark"
        )
    last = zip(chat.tokens[len(prompt) :], chat.loss_mask[len(prompt) :], strict=True)
    learnt = template.decode([token for token, on in last if on]).strip()
    expected, stop = messages[-1]["content"], template.decode([template.stop_id])
    # Not every vocabulary has every character and line end.
    if expected.isascii() and expected.isprintable() and learnt != expected + stop:
        raise UserError(
            f"chat template {template.name}: {learnt!r} is learnt where the answer is "
            f"{expected!r}; the generation marks must hold the answer and {stop!r} alone"
        )


def _can_be_forged(template: Any) -> bool:
    """Whether a user's text can be written that reads like the beginning of an answer."""
    question, answer = _conversations("Alpha", "Beta")[0]
    text, _ = template.render([question, answer])
    end = text.rfind("Beta") + len("Beta")
    forged = _turn("user", text[text.find("Alpha") : end])
    return template.render([forged], add_generation_prompt=True)[0].startswith(text[:end])
