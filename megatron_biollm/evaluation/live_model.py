"""Many log-likelihoods and continuations from a model in memory, shared out over its replicas."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from megatron_biollm.config import UserError
from megatron_biollm.generation.forward import model_device
from megatron_biollm.generation.generator import Generator
from megatron_biollm.generation.sampling import SamplingOptions, row_generators
from megatron_biollm.generation.scoring import score_places

Ids = Sequence[int]
Tell = Callable[[int], None]
BATCH_TOKENS = 4096
BATCH_ROWS = 64
LEAST_FILLED = 0.8  # a row that fills less of a batch begins another one


def _tell_nobody(done: int) -> None:
    pass


@dataclass(frozen=True)
class Request:
    """A text to write.

    Attributes:
        prompt: ids.
        options: how, how much, and where it ends.
    """

    prompt: tuple[int, ...]
    options: SamplingOptions


class LiveModel:
    """Answers lists of requests; all ranks of all replicas call it alike and get the same.

    Args:
        generator: model and tokenizer, in any layout that generation can use; the model may be in
            training, and is afterwards as it was.
        batch_tokens: most tokens that go through the model at once, padding included.
    """

    def __init__(self, generator: Generator, batch_tokens: int = BATCH_TOKENS) -> None:
        if batch_tokens < 1:
            raise UserError(f"batch_tokens={batch_tokens} must be at least 1")
        self.generator, self.batch_tokens = generator, batch_tokens
        self.replicas = generator.model.groups.dp

    @property
    def max_length(self) -> int:
        """Most tokens that the model may see at once."""
        return self.generator.max_length

    def log_likelihoods(
        self, pairs: Sequence[tuple[Ids, Ids]], tell: Tell = _tell_nobody
    ) -> list[tuple[float, bool]]:
        """For each context and continuation the latter's log-probability, and whether it is greedy.

        Pairs share a row where the tokens of one, but for its last, begin those of another: then
        the choices A to D of a question cost one row. A context too long for the model loses its
        beginning.

        Args:
            pairs: ids.
            tell: called with how many pairs are done.

        Raises:
            UserError: a context or continuation without tokens, a continuation that is longer than
                the context of the model, or a model whose output is not a number.
        """
        texts = [self._fit(*pair) for pair in pairs]
        rows = shared_rows([text[:-1] for text in texts])
        found = torch.zeros((len(pairs), 2), dtype=torch.float64)
        for batch in self._mine(self._by_length(rows)):
            self._score([(row, rows[row]) for row in batch], texts, pairs, found)
            tell(sum(len(rows[row]) for row in batch) * self.replicas.size())
        found = self._of_all(found)
        if not torch.isfinite(found).all():
            raise UserError(
                "log-likelihoods are not numbers (NaN); the model's training has diverged, use "
                "an older checkpoint"
            )
        return [(value, greedy > 0) for value, greedy in found.tolist()]

    def write(self, requests: Sequence[Request], tell: Tell = _tell_nobody) -> list[list[int]]:
        """The ids that continue each request's prompt, without those that end it.

        Copies of a prompt that is sampled get texts of their own; all are the same in every layout.
        A prompt that leaves no room for `max_new_tokens` loses its beginning.
        """
        prompts = [one.prompt[one.options.max_new_tokens - self.max_length :] for one in requests]
        chance: dict[int, torch.Generator] = {}
        for seed in {one.options.seed for one in requests}:
            own = [i for i, one in enumerate(requests) if one.options.seed == seed]
            made = row_generators(seed, [prompts[i] for i in own])
            chance |= dict(zip(own, made, strict=True))
        longest = max((one.options.max_new_tokens for one in requests), default=0)
        # Ids are written one above themselves, so that 0 is "nothing" when replicas are added up.
        found = torch.zeros((len(requests), longest), dtype=torch.int64)
        for batch in self._mine(_alike(requests, prompts)):
            for i, ids in zip(batch, self._write(batch, requests, prompts, chance), strict=True):
                found[i, : len(ids)] = torch.tensor(ids, dtype=torch.int64) + 1
            tell(len(batch) * self.replicas.size())
        return [[i - 1 for i in row if i] for row in self._of_all(found).tolist()]

    def _fit(self, context: Ids, continuation: Ids) -> tuple[int, ...]:
        if not context or not continuation:
            raise UserError(
                "a context or a continuation has no tokens: the tokenizer makes nothing of its "
                "text; use one that knows every byte (tools/train_tokenizer.py trains such)"
            )
        if len(continuation) > self.max_length:
            raise UserError(
                f"a continuation of {len(continuation)} tokens does not fit the model's context "
                f"of {self.max_length} (model.max_position_embeddings); leave it out or cut it"
            )
        return (*context, *continuation)[-(self.max_length + 1) :]

    def _by_length(self, rows: dict[tuple[int, ...], list[int]]) -> Iterator[list[tuple]]:
        """Rows in batches of like length, the longest first, so that memory runs out at once."""
        batch: list[tuple] = []
        for row in sorted(rows, key=lambda row: (-len(row), row)):
            full = batch and (len(batch) + 1) * len(batch[0]) > self.batch_tokens
            if full or (batch and len(row) < LEAST_FILLED * len(batch[0])):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _mine(self, batches: Iterator[list]) -> Iterator[list]:
        """Every replica's share in turn."""
        for number, batch in enumerate(batches):
            if number % self.replicas.size() == self.replicas.rank():
                yield batch

    def _score(
        self,
        batch: Sequence[tuple[tuple[int, ...], list[int]]],
        texts: Sequence[tuple[int, ...]],
        pairs: Sequence[tuple[Ids, Ids]],
        found: torch.Tensor,
    ) -> None:
        """Fills `found` for the pairs of the rows of a batch."""
        width, pad = len(batch[0][0]), self.generator.tokenizer.eod
        tokens_bs = torch.tensor([row + (pad,) * (width - len(row)) for row, _ in batch])
        places: tuple[list[int], list[int]] = ([], [])
        targets: list[int] = []
        owners: list[int] = []
        for row, (_, members) in enumerate(batch):
            for member in members:
                count, end = len(pairs[member][1]), len(texts[member]) - 1
                places[0].extend([row] * count)
                places[1].extend(range(end - count, end))
                targets.extend(texts[member][-count:])
                owners.extend([member] * count)
        generator = self.generator
        scores = score_places(
            generator.model, tokens_bs, places, targets, generator.tokenizer.vocab_size
        )
        owners_n = torch.tensor(owners)
        found[:, 0].index_add_(0, owners_n, scores.log_probs.double().cpu())
        found[[m for _, members in batch for m in members], 1] = 1.0
        found[owners_n[~scores.is_greedy.cpu()], 1] = 0.0

    def _write(
        self,
        batch: Sequence[int],
        requests: Sequence[Request],
        prompts: Sequence[Ids],
        chance: dict[int, torch.Generator],
    ) -> list[list[int]]:
        rows = self.generator.generate(
            [prompts[i] for i in batch],
            requests[batch[0]].options,
            chance=[chance[i] for i in batch],
        )
        return [row.tokens for row in rows]

    def _of_all(self, found: torch.Tensor) -> torch.Tensor:
        """What the replicas found, put together: where one has a value, the others have zero."""
        if self.replicas.size() == 1:
            return found
        found = found.to(model_device(self.generator.model))
        torch.distributed.all_reduce(found, group=self.replicas)
        return found.cpu()


def shared_rows(inputs: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], list[int]]:
    """Rows to run, each with the numbers of the inputs that it is or begins with."""
    order = sorted(range(len(inputs)), key=lambda i: inputs[i], reverse=True)
    rows: dict[tuple[int, ...], list[int]] = {}
    row: tuple[int, ...] = ()
    for i in order:
        # In this order what a row begins with follows it, before anything that it does not.
        if not rows or row[: len(inputs[i])] != inputs[i]:
            row = inputs[i]
            rows[row] = []
        rows[row].append(i)
    return rows


def _alike(requests: Sequence[Request], prompts: Sequence[Ids]) -> Iterator[list[int]]:
    """Batches of requests that are written in the same way, of like length.

    The rows of a batch begin together, and the longer ones read one token at a time from there on:
    where that would take longer than to write, another batch begins.
    """
    groups: dict[SamplingOptions, list[int]] = {}
    for i, one in enumerate(requests):
        groups.setdefault(one.options, []).append(i)
    for options, members in groups.items():
        batch: list[int] = []
        for i in sorted(members, key=lambda i: (-len(prompts[i]), i)):
            apart = batch and len(prompts[batch[0]]) - len(prompts[i]) > options.max_new_tokens
            if apart or len(batch) == BATCH_ROWS:
                yield batch
                batch = []
            batch.append(i)
        yield batch
