"""Settings of near-duplicate removal and of the removal of contained documents."""

from dataclasses import dataclass

from megatron_biollm.config import UserError, option

# Their records fill in one form and bear names of their own, see `dedup/rule.py`.
FORM_SOURCES = ["clinical_trials", "clinical_notes", "patents"]


@dataclass
class NearDuplicateConfig:
    """MinHash (Broder 1997) with banding; a document goes when a preferred one is this similar.

    Similarities are Jaccard's. With a share p of a text's words changed here and there, that of
    runs of n words is q / (2 - q) where q = (1 - p) ** n: 0.44 for p = 0.15 and n = 3, 0.74 for
    single words. Texts that share a form or a paragraph of boilerplate have runs in common as well,
    but too few of their words. A pair of similarity s meets in some bucket with probability
    1 - (1 - s ** hashes_per_bucket) ** num_buckets.

    Records of `form_sources` have more than that in common, see `dedup/rule.py`. Among 1,800 notes,
    trials and patents of 70 words and more the same text, filed twice under other names and dates,
    had at least 0.80 of its runs and 0.90 of its words in common, different texts in one form up to
    0.75 of their runs. Sentences of 10 to 30 words with another number or name in them had up to
    0.89, but fewer than 0.90 of their words.
    """

    enabled: bool = option(True, "remove near-duplicates within and across sources")
    ngram: int = option(3, "words in a shingle")
    num_buckets: int = option(40, "tables in which documents with equal hashes meet")
    hashes_per_bucket: int = option(3, "hashes that must agree for documents to meet in a table")
    similarity: float = option(0.33, "least similarity of the shingles of texts that count as one")
    word_similarity: float = option(
        0.68, "least similarity of the words of texts that count as one"
    )
    form_sources: list[str] = option(
        FORM_SOURCES, "sources whose records fill in forms: two such are alike in their form alone"
    )
    form_similarity: float = option(0.85, "similarity, if higher, where both are of form_sources")
    form_word_similarity: float = option(
        0.9, "word_similarity, if higher, where both are of form_sources"
    )
    preferred_sources: list[str] = option(
        ["pmc", "pubmed", "clinical_trials", "patents", "clinical_notes"],
        "sources whose document is kept, best first; those not named come last",
    )
    seed: int = option(1, "seed of the hash functions")

    def __post_init__(self):
        for name in ("ngram", "num_buckets", "hashes_per_bucket"):
            _require_positive(f"near_duplicates.{name}", getattr(self, name))
        if self.num_buckets * self.hashes_per_bucket > 256:
            raise UserError(
                f"near_duplicates: {self.num_buckets} buckets of {self.hashes_per_bucket} hashes "
                "are more than the 256 hashes kept per document; lower one of the two"
            )
        for name in ("similarity", "word_similarity", "form_similarity", "form_word_similarity"):
            _require_share(f"near_duplicates.{name}", getattr(self, name))


@dataclass
class ContainmentConfig:
    """Finds short documents inside longer ones, an abstract in its full text for example.

    Of all shingles of a document those are kept whose hash is 0 modulo `modulus` (the sketch of
    Broder 1997, "On the resemblance and containment of documents", section 3). Of the abstracts of
    298 open-access articles 1 in 100 has more than 0.55 of its shingles of 5 words in the body of
    its own article; with every twentieth word changed it still has 0.75 to 0.8 of them in itself.
    """

    enabled: bool = option(True, "remove documents that a longer document contains")
    ngram: int = option(5, "words in a shingle")
    modulus: int = option(4, "one shingle in this many is kept")
    share: float = option(0.7, "share of a document's shingles that the longer one must hold")
    form_sources: list[str] = option(
        FORM_SOURCES, "sources whose records fill in forms: two such hold much of one another"
    )
    form_share: float = option(0.95, "share, if higher, where both are of form_sources")
    min_shingles: int = option(8, "kept shingles below which a document is not judged")
    common: int = option(16, "a shingle met in more documents than this says nothing of a pair")
    preferred_sources: list[str] = option(
        ["pmc", "pubmed", "clinical_trials", "patents", "clinical_notes"],
        "of two documents of equal length the one kept, best first",
    )

    def __post_init__(self):
        for name in ("ngram", "modulus", "min_shingles", "common"):
            _require_positive(f"containment.{name}", getattr(self, name))
        for name in ("share", "form_share"):
            _require_share(f"containment.{name}", getattr(self, name))


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise UserError(f"{name} is {value}; it is a count, give at least 1")


def _require_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise UserError(f"{name} is {value}; it is a share, give more than 0 and at most 1")
