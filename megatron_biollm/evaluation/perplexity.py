"""How well a model foretells texts: perplexity per token and per word, and bits per byte.

A text's log-likelihood is lm-eval's `loglikelihood_rolling`: what is longer than the context is cut
into windows, and every token is foretold once. Tokens are counted as it scores them, so where the
tokenizer begins each text with BOS that counts too. Words are what white space separates, bytes
those of UTF-8. Only bits per byte can be compared between models of different tokenizers.
"""

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import Benchmark, Conventions, Prompt, Source
from megatron_biollm.evaluation.items import DocumentItem, Prediction
from megatron_biollm.evaluation.tally import Score, Tally, by_document

TASK = "texts"
PREFIX = "perplexity_"
ROLE = "documents"
SPLIT = "all"
_NAME = re.compile(r"[A-Za-z0-9_-]+")
# exp() of more is no number in float64.
_LARGEST = 700.0


def texts_benchmark(
    name: str, pattern: str, read: Callable[[Source, Conventions], list[DocumentItem]]
) -> Benchmark:
    """The texts of one source as a benchmark, `perplexity_<name>`.

    Args:
        name: of the source, such as pubmed.
        pattern: of its files, which `read` finds as the role `documents`.

    Raises:
        UserError: a name that is no part of a file's name.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of a source; give letters, digits, - and _")
    return Benchmark(
        name=PREFIX + name,
        title=name,
        task=TASK,
        folder="",
        download=f"the texts of {name}",
        splits={SPLIT: {ROLE: pattern}},
        test_split=SPLIT,
        fewshot_split="",
        prompt=Prompt(""),
        read=read,
        score=score_texts,
    )


def score_texts(
    items: Sequence[DocumentItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """Bits per byte, perplexity per word and per token, of all texts together.

    Args:
        predictions: of each text its log-likelihood, in nats, and number of tokens.

    Raises:
        UserError: not one prediction an item, or one that is not two numbers.
    """
    if len(items) != len(predictions):
        raise UserError(
            f"there are {len(predictions)} log-likelihoods for {len(items)} texts; give one for "
            f"each"
        )
    counts = np.zeros((len(items), 4))
    for row, (item, found) in enumerate(zip(items, predictions, strict=True)):
        if not isinstance(found, tuple) or len(found) != 2 or not np.isfinite(found).all():
            raise UserError(
                f"the prediction for {item.id} is {found!r:.40}; of a text it is the "
                f"log-likelihood and the number of tokens"
            )
        counts[row] = (*found, len(item.text.split()), len(text_bytes(item.text)))
    documents, counts_dk = by_document([one.document for one in items], counts)
    return Tally(documents, counts_dk, dict(SCORES), len(items))


def text_bytes(text: str) -> bytes:
    """A text in UTF-8; halves of a character that JSON can hold take three bytes each."""
    return text.encode(errors="surrogatepass")


def _nats_per(counts_k: np.ndarray, column: int) -> np.ndarray:
    """Minus the mean log-likelihood of a token (1), word (2) or byte (3); 0 where there is none."""
    whole = counts_k[..., column]
    return np.divide(-counts_k[..., 0], whole, out=np.zeros_like(whole), where=whole > 0)


def _bits_per_byte(counts_k: np.ndarray) -> np.ndarray:
    return _nats_per(counts_k, 3) / math.log(2)


def _per_word(counts_k: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(_nats_per(counts_k, 2), _LARGEST))


def _per_token(counts_k: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(_nats_per(counts_k, 1), _LARGEST))


SCORES: tuple[tuple[str, Score], ...] = (
    ("bits_per_byte", _bits_per_byte),
    ("perplexity_per_word", _per_word),
    ("perplexity_per_token", _per_token),
)
