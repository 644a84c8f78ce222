"""Conversations to ids: one template for training, generation, evaluation and the export.

The template is Jinja, rendered and understood by `transformers` itself, so the ids are those of
`AutoTokenizer.from_pretrained(export).apply_chat_template(messages)`. What the assistant writes,
text and stop token, stands between `{% generation %}` and `{% endgeneration %}`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from megatron_biollm.atomic import write_json
from megatron_biollm.config import UserError
from megatron_biollm.tokenizer.chat_tokenizer import rendered_chat_tokenizer, special_tokens
from megatron_biollm.tokenizer.messages import check_conversation, check_prompt
from megatron_biollm.tokenizer.template_source import (
    DEFAULT,
    TEMPLATE_FILE,
    TRAINING_TEMPLATE_FILE,
    cut,
    folder_template,
    guarded,
    has_marks,
    named_template,
    role_markers,
    without_marks,
)
from megatron_biollm.tokenizer.tokenizer import Tokenizer

Messages = Sequence[dict[str, Any]]
Span = tuple[int, int]


@dataclass(frozen=True)
class EncodedChat:
    """A conversation as ids.

    Attributes:
        tokens: ids of the whole conversation.
        loss_mask: one per token, True on the assistant's text and its stop token. It belongs to
            the token itself: a label, which is the next token, takes the mask of that token.
    """

    tokens: list[int]
    loss_mask: list[bool]


class ChatTemplate:
    """Writes conversations as ids; made by `load_chat_template`.

    Attributes:
        text: the Jinja source. name: where it came from, for messages.
        stop_id: the token that ends every answer; generation stops there.
        sha256: digest of `text`.
    """

    def __init__(self, text: str, name: str, transformers_tokenizer: Any) -> None:
        self.name, self._hf = name, transformers_tokenizer
        self._special = special_tokens(transformers_tokenizer)
        words = {*self._special.values(), *role_markers(text)}
        self._words = sorted((w for w in words if len(w) > 1), key=lambda w: (-len(w), w))
        self.text = guarded(text, self._words)
        self.bos = transformers_tokenizer.bos_token_id
        self.stop_id = self._find_stop()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def trains(self) -> bool:
        """Whether the template marks what the assistant writes, so that `encode` knows it."""
        return has_marks(self.text)

    def encode(self, messages: Messages) -> EncodedChat:
        """The ids of a conversation, and which of them are learnt.

        Raises:
            UserError: messages that are none, no turn of the assistant, or a template that
                has no generation marks, drops text, leaves the stop token unmarked or does not
                begin with one BOS.
        """
        check_conversation(messages)
        if not self.trains:
            raise UserError(
                f"chat template {self.name} has no {{% generation %}} marks, so what the assistant "
                f"wrote is unknown; put its text and its stop token between {{% generation %}} and "
                f"{{% endgeneration %}}, or set tokenizer.chat_template={DEFAULT}"
            )
        text, spans = self.render(messages)
        self._check_written(messages, text, spans)
        encoding = self._encoding(text)
        mask = self._mask(encoding.offsets, spans)
        self._check_stops(encoding.ids, mask, len(spans))
        return EncodedChat(self._with_one_bos(encoding.ids), mask)

    def encode_prompt(self, messages: Messages) -> list[int]:
        """The ids after which the assistant answers; `encode` of the answered one starts with them.

        Raises:
            UserError: messages that are none, or whose last is the assistant's own.
        """
        check_prompt(messages)
        text, _ = self.render(messages, add_generation_prompt=True)
        self._check_written(messages, text)
        return self._with_one_bos(self._encoding(text).ids)

    def render(
        self, messages: Messages, add_generation_prompt: bool = False
    ) -> tuple[str, list[Span]]:
        """The conversation as text, and from which to which character the assistant writes.

        Raises:
            UserError: the template is not Jinja, or refuses this conversation.
        """
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        plain = [{"role": m["role"], "content": m["content"]} for m in messages]
        try:
            texts, spans = render_jinja_template(
                conversations=[plain],
                chat_template=self.text,
                return_assistant_tokens_mask=self.trains,
                add_generation_prompt=add_generation_prompt,
                **self._hf.special_tokens_map,
            )
        except (TemplateError, TypeError) as error:
            raise UserError(
                f"chat template {self.name} cannot write this conversation ("
                f"{', '.join(m['role'] for m in plain)}): {error}; change the conversation, or "
                f"set another tokenizer.chat_template"
            ) from error
        return texts[0], [tuple(span) for span in spans[0]] if self.trains else []

    def written(self, content: str) -> str:
        """A message's text as it stands in the rendered conversation, without outer spaces.

        Special tokens and role markers in it are broken up, so that they stay text.
        """
        for word in self._words:
            content = content.replace(word, cut(word))
        return content.strip()

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens by their names."""
        return self._hf.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )

    def save(self, folder: Path, for_inference: bool) -> None:
        """Writes the template into a tokenizer's folder.

        Args:
            for_inference: of an export. There chat_template.jinja is without generation marks,
                the one to train with stands beside it, and special tokens that the template
                writes are read as such by every program, as `apply_chat_template` needs.
        """
        text = without_marks(self.text) if for_inference else self.text
        (folder / TEMPLATE_FILE).write_text(text, encoding="utf-8")
        if not for_inference:
            return
        (folder / TRAINING_TEMPLATE_FILE).write_text(self.text, encoding="utf-8")
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        config.pop("chat_template", None)
        write_json(folder / "tokenizer_config.json", config | {"split_special_tokens": False})

    def _encoding(self, text: str) -> Any:
        return self._hf.backend_tokenizer.encode(text, add_special_tokens=False)

    def _mask(self, offsets: Sequence[Span], spans: Sequence[Span]) -> list[bool]:
        mask = [False] * len(offsets)
        token = 0
        for start, end in spans:
            while token < len(offsets) and offsets[token][1] <= start:
                token += 1
            while token < len(offsets) and offsets[token][0] < end:
                if offsets[token][0] < start or offsets[token][1] > end:
                    raise UserError(
                        f"chat template {self.name}: a token of this tokenizer reaches over the "
                        f"border of {{% generation %}}, so it belongs to the prompt and to the "
                        f"answer; let the text before the mark end with a line end or a special "
                        f"token"
                    )
                mask[token] = True
                token += 1
        return mask

    def _check_written(
        self, messages: Messages, text: str, spans: Optional[Sequence[Span]] = None
    ) -> None:
        answers, position = iter(spans or ()), 0
        for number, message in enumerate(messages, start=1):
            content = self.written(message["content"])
            position = text.find(content, position)
            span = None
            if spans is not None and message["role"] == "assistant":
                span = next(answers, (0, 0))
            end = position + len(content)
            if position < 0 or (span and not (span[0] <= position and end <= span[1])):
                where = "between its generation marks" if span and position >= 0 else "as it is"
                raise UserError(
                    f"chat template {self.name} does not write message {number} "
                    f"({message['role']}) {where}: {content[:60]!r}; every text must come back "
                    f"from the rendered conversation, so mend the template or leave this message "
                    f"out"
                )
            position = end
        if next(answers, None) is not None:
            raise UserError(
                f"chat template {self.name} has generation marks around more than the assistant's "
                f"messages; mark these alone"
            )

    def _check_stops(self, ids: Sequence[int], mask: Sequence[bool], answers: int) -> None:
        ends = [i for i, on in enumerate(mask) if on and not (i + 1 < len(mask) and mask[i + 1])]
        stops = [i for i, on in enumerate(mask) if on and ids[i] == self.stop_id]
        if ends != stops or len(stops) != answers:
            raise UserError(
                f"chat template {self.name} leaves the stop token "
                f"{self._special[self.stop_id]!r} out of the generation marks, so the model would "
                f"never learn to stop; put {{% endgeneration %}} right behind it"
            )

    def _with_one_bos(self, ids: list[int]) -> list[int]:
        if self.bos is None or self.bos == self.stop_id:
            return ids
        if ids[:1] != [self.bos] or ids.count(self.bos) != 1:
            raise UserError(
                f"chat template {self.name} writes {ids.count(self.bos)} times "
                f"{self._special[self.bos]!r}, and a conversation must begin with one and hold no "
                f"other; write {{{{ bos_token }}}} once, before the first message, or set "
                f"tokenizer.chat_template={DEFAULT}"
            )
        return ids

    def _find_stop(self) -> int:
        """The first special token behind an answer."""
        answer = "Beta"
        text, _ = self.render(
            [{"role": "user", "content": "Alpha"}, {"role": "assistant", "content": answer}]
        )
        encoding, end = self._encoding(text), text.rfind(answer) + len(answer)
        behind = (i for i, at in zip(encoding.ids, encoding.offsets, strict=True) if at[0] >= end)
        stop = next((i for i in behind if i in self._special), None)
        if stop is None:
            raise UserError(
                f"chat template {self.name} ends an answer with no special token of this "
                f"tokenizer, so generation would not know where to stop; write {{{{ eos_token }}}} "
                f"behind the assistant's content"
            )
        return stop


def load_chat_template(tokenizer: Tokenizer, name_or_path: Optional[str] = None) -> ChatTemplate:
    """The template that a model of this tokenizer speaks, tried out on conversations.

    The tokenizer carries it from then on: whatever it is saved with (`Tokenizer.save_pretrained`:
    checkpoints) holds the same template.

    Args:
        name_or_path: a built-in name, a .jinja file, or a folder with a template; None takes the
            one that the tokenizer carries (`tokenizer.chat_template`), then the one in its folder,
            then the built-in default.

    Raises:
        UserError: no such template, or one that cannot be trained or answered with: see
            `template_checks.check_template`.
    """
    from megatron_biollm.tokenizer.template_checks import check_template

    text, name = _find(tokenizer, name_or_path)
    template = ChatTemplate(text, name, rendered_chat_tokenizer(tokenizer))
    check_template(template)
    tokenizer.chat_template = template.text
    return template


def own_template(tokenizer: Tokenizer) -> Optional[str]:
    """The template that a tokenizer carries or that lies in its folder; None without one."""
    return tokenizer.chat_template or folder_template(tokenizer.folder)


def save_for_inference(tokenizer: Tokenizer, folder: Path) -> Optional[int]:
    """Writes the files of a tokenizer as an export holds them, its chat template included.

    Of a model that was trained on conversations, the template is the one of its training and every
    program reads what it writes; one without generation marks came with the model: its files stay
    as they are.

    Returns:
        The stop token of such a model's answers; None of any other.
    """
    tokenizer.save_pretrained(folder)
    if not has_marks(own_template(tokenizer) or ""):
        return None
    template = load_chat_template(tokenizer)
    template.save(folder, for_inference=True)
    return template.stop_id


def _find(tokenizer: Tokenizer, name_or_path: Optional[str]) -> tuple[str, str]:
    if name_or_path is not None:
        return named_template(name_or_path), repr(name_or_path)
    own = own_template(tokenizer)
    if own is not None:
        return own, f"of the tokenizer {tokenizer.folder}"
    return named_template(DEFAULT), repr(DEFAULT)
