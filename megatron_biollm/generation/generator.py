"""Continuations of prompts by a model that lies on many ranks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Optional

import torch

from megatron_biollm.config import UserError
from megatron_biollm.generation.forward import (
    KeyValueCache,
    broadcast_from_last_stage,
    check_generates,
    forward,
    inference,
    model_device,
)
from megatron_biollm.generation.sampling import SamplingOptions, choose, row_generators
from megatron_biollm.generation.text_stream import TextStream
from megatron_biollm.parallel.parallelize import ParallelModel
from megatron_biollm.tokenizer.tokenizer import Tokenizer

# Called with the row and its new text, on every rank; where it returns True the row ends, so it
# must answer alike on every rank.
OnText = Callable[[int, str], Optional[bool]]


@dataclass
class Continuation:
    """What the model wrote after one prompt.

    Attributes:
        prompt_tokens: ids of the prompt.
        tokens: ids that follow, without the one that ends them.
        text: of `tokens`.
        finish_reason: "eod" (the model ended the document or its answer), "length" (of the
            continuation or of the model's context), "stopped" (by the caller), or empty while it
            is written.
    """

    prompt_tokens: list[int]
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finish_reason: str = ""


class Generator:
    """Writes text with a model whose ranks all call the same methods with the same arguments.

    Data-parallel replicas do not talk to each other: each may be given prompts of its own.

    Args:
        model: any tensor- and pipeline-parallel layout; may be in training.
        tokenizer: of the model.
        max_length: most tokens the model may see at once, its context.

    Raises:
        UserError: a layout that generation cannot use.
    """

    def __init__(self, model: ParallelModel, tokenizer: Tokenizer, max_length: int) -> None:
        check_generates(model)
        self.model, self.tokenizer, self.max_length = model, tokenizer, max_length

    def encode(self, prompt: str) -> list[int]:
        """The ids to continue. An empty prompt becomes the end of the document before.

        Raises:
            UserError: the prompt fills the context.
        """
        ids = self.tokenizer.encode(prompt)
        # Some tokenizers end every text; the model would then begin another document.
        while ids and ids[-1] == self.tokenizer.eod:
            ids.pop()
        ids = ids or [self.tokenizer.eod]
        self._check_length(ids)
        return ids

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        options: SamplingOptions,
        on_text: Optional[OnText] = None,
        batch_size: int = 0,
        chance: Optional[Sequence[torch.Generator]] = None,
    ) -> list[Continuation]:
        """Continues every prompt, one token for all of a batch at a time.

        Prompts may differ in length: the shortest is read in one pass, and the others go on with
        their own tokens where it begins to write. No padding is seen by any row. batch_size: rows
        at once, which memory limits; 0 for all. The text is the same for any.

        Raises:
            UserError: no prompt, an empty one, or one that fills the context; or the model's
                output is not a number.
        """
        if not prompts:
            raise UserError("no prompt to continue; give at least one")
        for prompt in prompts:
            self._check_length(prompt)
        rows = [Continuation(list(prompt)) for prompt in prompts]
        streams = [TextStream(self.tokenizer, prompt) for prompt in prompts]
        chance = chance or row_generators(options.seed, prompts)
        for start in range(0, len(rows), batch_size or len(rows)):
            part = slice(start, start + (batch_size or len(rows)))
            tell = None if on_text is None else partial(_tell, on_text, start)
            self._write(rows[part], streams[part], chance[part], options, tell)
        return rows

    def _write(
        self,
        rows: list[Continuation],
        streams: list[TextStream],
        chance: list[torch.Generator],
        options: SamplingOptions,
        on_text: Optional[OnText],
    ) -> None:
        """Fills `rows`, all of them at once."""
        lengths = [len(row.prompt_tokens) for row in rows]
        longest = max(lengths) + options.max_new_tokens
        cache = KeyValueCache(len(rows), min(longest, self.max_length))
        tokens_bs = self._columns(rows, 0, min(lengths))
        with inference(self.model):
            while any(not row.finish_reason for row in rows):
                logits = forward(self.model, tokens_bs, cache)
                writing = [i for i, row in enumerate(rows) if _writes(row, cache.length)]
                chosen = self._choose(logits, writing, options, chance)
                for i, token in zip(writing, chosen, strict=True):
                    self._take(rows[i], i, token, streams[i], options, on_text)
                tokens_bs = self._columns(rows, cache.length, cache.length + 1)

    def _check_length(self, prompt: Sequence[int]) -> None:
        if not prompt:
            raise UserError("a prompt has no tokens; give at least the end-of-document id")
        if len(prompt) >= self.max_length:
            raise UserError(
                f"the prompt has {len(prompt)} tokens and the model's context is "
                f"{self.max_length} (model.max_position_embeddings), of which at least one must "
                f"be left to write; shorten the prompt"
            )

    def _columns(self, rows: Sequence[Continuation], start: int, stop: int) -> torch.Tensor:
        """Tokens `start` to `stop` of every row; a row that has ended goes on with nothing."""
        eod = self.tokenizer.eod
        texts = [(row.prompt_tokens + row.tokens)[start:stop] for row in rows]
        padded = [ids + [eod] * (stop - start - len(ids)) for ids in texts]
        return torch.tensor(padded, dtype=torch.int64, device=model_device(self.model))

    def _choose(
        self,
        logits: Optional[torch.Tensor],
        writing: Sequence[int],
        options: SamplingOptions,
        chance: Sequence[torch.Generator],
    ) -> list[int]:
        """The next token of each row that writes; chosen on the last stage, told to every rank."""
        chosen = torch.zeros(len(writing), dtype=torch.int64, device=model_device(self.model))
        if not writing:
            return []
        if logits is not None:
            # Rows of the embedding beyond the true vocabulary only fill it up.
            logits = logits[:, -1, : self.tokenizer.vocab_size].float()
            ids = [choose(logits[i], options, chance[i]) for i in writing]
            chosen.copy_(torch.tensor(ids))
        ids = broadcast_from_last_stage(self.model, chosen).tolist()
        if -1 in ids:
            raise UserError(
                "the model's logits are not numbers (NaN); its training has diverged, use an "
                "older checkpoint"
            )
        return ids

    def _take(
        self,
        row: Continuation,
        index: int,
        token: int,
        stream: TextStream,
        options: SamplingOptions,
        on_text: Optional[OnText],
    ) -> None:
        if token == self.tokenizer.eod or token in options.stop_ids:
            row.finish_reason = "eod"
        else:
            row.tokens.append(token)
        written = len(row.prompt_tokens) + len(row.tokens)
        if len(row.tokens) == options.max_new_tokens or written == self.max_length:
            row.finish_reason = row.finish_reason or "length"
        if not row.finish_reason and options.ends is not None and options.ends(row.tokens):
            row.finish_reason = "stopped"
        piece = "" if row.finish_reason == "eod" else stream.add(token)
        if row.finish_reason:
            piece += stream.finish()
        row.text += piece
        if piece and on_text is not None and on_text(index, piece):
            row.finish_reason = row.finish_reason or "stopped"


def _tell(on_text: OnText, start: int, row: int, piece: str) -> Optional[bool]:
    return on_text(start + row, piece)


def _writes(row: Continuation, length: int) -> bool:
    """Whether the token at position `length` is the row's to choose, not its prompt's."""
    return not row.finish_reason and len(row.prompt_tokens) <= length
