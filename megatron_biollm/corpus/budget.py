"""How much of each source a training run sees: upsampling, budgets, and what is then repeated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from megatron_biollm.config import UserError
from megatron_biollm.corpus.config import SourceConfig


@dataclass(frozen=True)
class Share:
    """One source in the mixture.

    unique_tokens: what the source holds. sampled_tokens: what a run sees of it. epochs: the one
    by the other. weight: share of the mixture, all of them 1 together.
    """

    source: str
    unique_tokens: int
    sampled_tokens: float
    epochs: float
    weight: float

    @property
    def repeated_tokens(self) -> float:
        """Tokens seen that were seen before."""
        return max(0.0, self.sampled_tokens - self.unique_tokens)


def token_shares(
    unique_tokens: Mapping[str, int],
    sources: Mapping[str, SourceConfig],
    train_tokens: float | None = None,
) -> list[Share]:
    """The mixture, by sources in order of name.

    Args:
        unique_tokens: tokens of each source after curation.
        sources: its `epochs` and `token_budget`; a source that is not named counts once.
        train_tokens: length of the run; all sources are then repeated or cut alike to make it up.
            None: the run is as long as the sources give.

    Raises:
        UserError: no token is left to sample.
    """
    default = SourceConfig()
    sampled = {}
    for source, tokens in sorted(unique_tokens.items()):
        wanted = sources.get(source, default)
        sampled[source] = min(tokens * wanted.epochs, wanted.token_budget or float("inf"))
    total = sum(sampled.values())
    if not total:
        raise UserError(
            "no token is left to sample: every source is empty or has epochs 0; give at least one "
            "source with text and epochs above 0"
        )
    scale = train_tokens / total if train_tokens else 1.0
    return [
        Share(
            source=source,
            unique_tokens=unique_tokens[source],
            sampled_tokens=tokens * scale,
            epochs=tokens * scale / unique_tokens[source],
            weight=tokens / total,
        )
        for source, tokens in sampled.items()
        if tokens
    ]


def blend(shares: list[Share], corpora: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Megatron's `data_path`: weights and prefixes in turn.

    corpora: by source, the tokens of each prefix; a source's weight is dealt out by them.
    """
    path: list[str] = []
    for share in shares:
        tokens = {prefix: n for prefix, n in corpora[share.source].items() if n}
        total = sum(tokens.values())
        for prefix, n in sorted(tokens.items()):
            path += [f"{share.weight * n / total:.9g}", prefix]
    return path
