"""BC2GM: genes and gene products in 20,000 sentences, with alternatives that are as good.

BioCreative II gene mention, Smith et al. 2008, https://doi.org/10.1186/gb-2008-9-s2-s2. Offsets in
the `.eval` files count characters that are no white space, the end included. Its own scoring
takes alternatives (`ALTGENE.eval`); papers score the tokenised version, without them (Crichton et
al. 2017, https://doi.org/10.1186/s12859-017-1776-8), which splits the 15,000 training sentences.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmark import Benchmark, Convention, Conventions, Source
from megatron_biollm.evaluation.benchmarks.bio import Tagged, read_tagged
from megatron_biollm.evaluation.benchmarks.ner import ner_prompt
from megatron_biollm.evaluation.entities import altgene_tally, span_tally
from megatron_biollm.evaluation.files import read_text
from megatron_biollm.evaluation.items import Prediction, Span, SpanItem
from megatron_biollm.evaluation.tally import Tally

GENE = "GENE"
SCORING = Convention(
    "scoring",
    ("altgene", "bio"),
    "altgene: as BioCreative II, where alternatives of a gene find it too; bio: strict F1 of the "
    "tokenised version, as papers and BLURB",
)
_TRAINING_NAME = re.compile(r"(P\d+)[AT]\d+")
Extents = Mapping[str, Sequence[Span]]


def read(source: Source, conventions: Conventions) -> list[SpanItem]:
    """The sentences of a split.

    Raises:
        UserError: a file is missing or not as published.
    """
    texts = _read_sentences(source.path("sentences"))
    if conventions["scoring"] == "bio":
        tagged = read_tagged(source.path("tokens"), (GENE,))
        return [_item(name, texts[name], spans) for name, spans in _placed(tagged, texts)]
    genes = _read_extents(source.path("genes"), texts)
    others = _read_extents(source.path("alternatives"), texts)
    return [
        _item(name, texts[name], genes[name], _alternatives(genes[name], others[name]))
        for name in _names(source, texts)
    ]


def _names(source: Source, texts: Mapping[str, str]) -> list[str]:
    """The sentences of the split: where the tokenised version cut the file, those it has."""
    if source.split not in ("train", "dev"):
        return list(texts)
    return [name for name, _ in _placed(read_tagged(source.path("tokens"), (GENE,)), texts)]


def _read_sentences(path: Path) -> dict[str, str]:
    texts = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        name, space, text = line.rstrip("\r").partition(" ")
        if (line.strip() and not (space and text.strip())) or name in texts:
            raise UserError(
                f"{path}:{number} is {line!r:.80}; it must be a name of its own, a space, a text"
            )
        if name:
            texts[name] = text
    if not texts:
        raise UserError(f"{path} has no sentence; each line must be a name, a space, a text")
    return texts


def _read_extents(path: Path, texts: Mapping[str, str]) -> Extents:
    """Of each sentence its mentions, `name|start end|text`, in characters of its text."""
    extents = defaultdict[str, list[Span]](list)
    places: dict[str, list[int]] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        name, offsets, mention = _fields(line.rstrip("\r"), f"{path}:{number}")
        if name not in texts:
            raise UserError(f"{path}:{number} is of {name!r}, which is no sentence of this split")
        if name not in places:
            places[name] = [at for at, one in enumerate(texts[name]) if not one.isspace()]
        extents[name].append(
            _extent(texts[name], places[name], offsets, mention, f"{path}:{number}")
        )
    return extents


def _fields(line: str, where: str) -> tuple[str, tuple[int, int], str]:
    parts = line.split("|", 2)
    offsets = parts[1].split() if len(parts) == 3 else []
    if len(offsets) != 2 or not all(one.isdigit() for one in offsets):
        raise UserError(f"{where} is {line!r:.80}; it must be name|start end|text")
    return parts[0], (int(offsets[0]), int(offsets[1])), parts[2]


def _extent(
    text: str, places: Sequence[int], offsets: tuple[int, int], mention: str, where: str
) -> Span:
    """A mention as characters. Offsets count: in four lines the text is a letter or a word off."""
    start, end = offsets
    found = text[places[start] : places[end] + 1] if start <= end < len(places) else ""
    if not found or (found not in mention and mention not in found):
        raise UserError(
            f"{where}: {mention!r} is said to be at {start}-{end} (without white space), where "
            f"{found!r:.80} is; the file is not the published one"
        )
    return Span(places[start], places[end] + 1, GENE)


def _alternatives(
    genes: Sequence[Span], others: Sequence[Span]
) -> tuple[tuple[Span, tuple[Span, ...]], ...]:
    """Of each gene, the alternatives that overlap it; of one without a gene, itself."""
    of_gene = defaultdict[Span, list[Span]](list)
    for other in others:
        overlapping = [one for one in genes if one.start < other.end and other.start < one.end]
        for gene in overlapping or [other]:
            of_gene[gene].append(other)
    return tuple((gene, tuple(sorted(set(some)))) for gene, some in of_gene.items())


def _placed(
    tagged: Sequence[Tagged], texts: Mapping[str, str]
) -> Iterator[tuple[str, tuple[Span, ...]]]:
    """Of each tokenised sentence, the name of the original one and its mentions in that text."""
    names = defaultdict[str, list[str]](list)
    for name, text in texts.items():
        names["".join(text.split())].append(name)
    for sentence in tagged:
        if not names[sentence.packed]:
            raise UserError(
                f"{sentence.where}: no sentence is {' '.join(sentence.tokens)!r:.80}; "
                f"the tokens and the sentences must be of the same split"
            )
        name = names[sentence.packed].pop(0)
        yield name, _spans(sentence, texts[name])


def _spans(sentence: Tagged, text: str) -> tuple[Span, ...]:
    places = [place for place, letter in enumerate(text) if not letter.isspace()]
    starts, ends, position = [], [], 0
    for token in sentence.tokens:
        starts.append(places[position])
        position += len("".join(token.split()))
        ends.append(places[position - 1] + 1)
    return sentence.spans(starts, ends)


def _item(
    name: str,
    text: str,
    spans: Sequence[Span],
    alternatives: tuple[tuple[Span, tuple[Span, ...]], ...] = (),
) -> SpanItem:
    """Names of training sentences begin with their article's; those of the test are random."""
    article = _TRAINING_NAME.fullmatch(name)
    document = article[1] if article else name
    return SpanItem(name, document, text, tuple(sorted(set(spans))), alternatives, (GENE,))


def score(
    items: Sequence[SpanItem], predictions: Sequence[Prediction], conventions: Conventions
) -> Tally:
    """With alternatives, or strict; as the convention says."""
    return (altgene_tally if conventions["scoring"] == "altgene" else span_tally)(
        items, predictions
    )


def _split(part: str, tokens: str) -> dict[str, str]:
    return {
        "sentences": f"original/{part}/{part}.in",
        "genes": f"original/{part}/GENE.eval",
        "alternatives": f"original/{part}/ALTGENE.eval",
        "tokens": f"conll/{tokens}.tsv",
    }


BC2GM = Benchmark(
    name="bc2gm",
    title="BC2GM",
    task="ner",
    folder="bc2gm",
    download=(
        "the BioCreative II gene mention corpus (bc2GMtest_1.0.tar.gz and bc2GMtrain_1.1.tar.gz of "
        "https://biocreative.bioinformatics.udel.edu/; tokenised: "
        "https://github.com/spyysalo/bc2gm-corpus, folder conll)"
    ),
    splits={
        "test": _split("test", "test"),
        "dev": _split("train", "devel"),
        "train": _split("train", "train"),
        "official_train": _split("train", "train"),
    },
    test_split="test",
    fewshot_split="train",
    prompt=ner_prompt("genes and gene products", (GENE,)),
    read=read,
    score=score,
    conventions=(SCORING,),
)
