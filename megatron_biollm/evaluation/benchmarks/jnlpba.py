"""JNLPBA: proteins, DNA, RNA, cell lines and cell types in abstracts of the GENIA corpus.

Collier and Kim 2004, https://aclanthology.org/W04-1213: 2,000 abstracts to learn from, 404 to be
scored, tokenised. Papers differ in the types that they score, so that is a convention of the score:
a model is always asked for all five. The
development split is part of the training one (Crichton et al. 2017,
https://doi.org/10.1186/s12859-017-1776-8).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from megatron_biollm.evaluation.benchmark import Benchmark, Convention, Conventions, Source
from megatron_biollm.evaluation.benchmarks.bio import Tagged, read_tagged
from megatron_biollm.evaluation.benchmarks.brat import StandoffText, read_brat
from megatron_biollm.evaluation.benchmarks.ner import ner_prompt
from megatron_biollm.evaluation.entities import span_tally
from megatron_biollm.evaluation.items import Prediction, Span, SpanItem
from megatron_biollm.evaluation.sentences import sentences
from megatron_biollm.evaluation.tally import Tally

FIVE = ("protein", "DNA", "RNA", "cell_line", "cell_type")
TYPES = Convention(
    "types",
    ("five", "merged", "protein_dna_rna"),
    "five: all types apart, as the shared task; merged: all as one type, as BLURB; "
    "protein_dna_rna: those three as one type, as BioBERT",
)
_NAMES: Mapping[str, Mapping[str, str]] = {
    "five": {kind: kind for kind in FIVE},
    "merged": dict.fromkeys(FIVE, "entity"),
    "protein_dna_rna": dict.fromkeys(FIVE[:3], "entity"),
}


def read(source: Source, conventions: Conventions) -> list[SpanItem]:
    """The sentences of a split.

    Raises:
        UserError: a file is missing or not as published.
    """
    if "standoff" in source.paths:
        found = _of_standoff(read_brat(source.path("standoff"), FIVE))
    else:
        found = _of_tags(read_tagged(source.path("sentences"), FIVE))
    numbers, items = Counter[str](), []
    for document, text, spans in found:
        numbers[document] += 1
        name = f"{document}.{numbers[document]}"
        items.append(SpanItem(name, document, text, spans, types=FIVE))
    return items


def _of_tags(tagged: list[Tagged]) -> Iterator[tuple[str, str, tuple[Span, ...]]]:
    """Sentences with spaces between tokens; each its own document where the file tells none."""
    for number, sentence in enumerate(tagged, 1):
        name = f"document{sentence.document}" if sentence.document else f"sentence{number}"
        yield name, *sentence.joined()


def _of_standoff(texts: list[StandoffText]) -> Iterator[tuple[str, str, tuple[Span, ...]]]:
    for one in texts:
        whole = [(span.start, span.end) for span in one.spans]
        for start, end in sentences(one.text, whole):
            spans = tuple(
                Span(span.start - start, span.end - start, span.type)
                for span in sorted(one.spans)
                if start <= span.start and span.end <= end
            )
            yield one.name, one.text[start:end], spans


def score(
    items: Sequence[SpanItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """Strict scores of the types that the convention keeps, under the names that it gives them."""
    names = _NAMES[conventions["types"]]
    types = tuple(dict.fromkeys(names.values()))
    kept = [replace(one, spans=_renamed(one.spans, names), types=types) for one in items]
    return span_tally(kept, [one if one is None else _renamed(one, names) for one in predictions])


def _renamed(spans: Sequence[Span], names: Mapping[str, str]) -> tuple[Span, ...]:
    return tuple(replace(one, type=names[one.type]) for one in spans if one.type in names)


JNLPBA = Benchmark(
    name="jnlpba",
    title="JNLPBA",
    task="ner",
    folder="jnlpba",
    download=(
        "the JNLPBA 2004 shared task (Genia4ERtest.tar.gz and Genia4ERtraining.tar.gz of "
        "http://www.geniaproject.org/shared-tasks/bionlp-jnlpba-shared-task-2004; standoff: "
        "https://github.com/spyysalo/jnlpba)"
    ),
    splits={
        "test": {"sentences": "Genia4EReval2.iob2"},
        "dev": {"sentences": "mtl_devel.tsv"},
        "sample": {"sentences": "sampletest1.iob2"},
        "train": {"standoff": "standoff_train.tar.gz"},
    },
    test_split="test",
    fewshot_split="train",
    prompt=ner_prompt("proteins, DNA, RNA, cell lines and cell types", FIVE),
    read=read,
    score=score,
    conventions=(TYPES,),
)
