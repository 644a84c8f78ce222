"""The scorer of mentions counts as seqeval, conlleval and nervaluate do, on what they agree on."""

import random
import warnings

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.entities import altgene_tally, count_spans, span_tally, tag_spans
from megatron_biollm.evaluation.items import Span, SpanItem
from megatron_biollm.evaluation.suite import all_benchmarks
from tests.evaluation.shared_benchmarks import DATA, needs_data

GENE = Span(4, 8, "GENE")


def item(*spans, alternatives=(), types=()):
    return SpanItem("1", "1", "x" * 40, tuple(spans), tuple(alternatives), types)


def told(*items_and_predictions):
    return span_tally(*map(list, zip(*items_and_predictions, strict=True)))


def test_right_is_type_and_both_ends():
    gold = item(Span(0, 3, "a"), Span(5, 9, "b"), Span(12, 14, "a"))
    tally = told((gold, (Span(0, 3, "a"), Span(5, 9, "a"), Span(12, 15, "a"))))
    assert tally.value() == pytest.approx(2 * 1 / (3 + 3))
    assert tally.value("precision") == tally.value("recall") == pytest.approx(1 / 3)


def test_a_mention_told_twice_counts_once():
    assert told((item(GENE), (GENE, GENE))).value() == 1.0


def test_a_type_that_is_not_sought_is_wrong():
    assert told((item(GENE), (GENE, Span(0, 2, "drug")))).value() == pytest.approx(2 / 3)


def test_each_type_has_its_score_where_there_are_several():
    gold = item(Span(0, 3, "a"), Span(5, 9, "b"))
    tally = told((gold, (Span(0, 3, "a"),)))
    assert {kind: part.value() for kind, part in tally.parts.items()} == {"a": 1.0, "b": 0.0}
    assert tally.value("macro_f1") == 0.5


def test_nothing_told_or_nothing_sought_is_0_and_what_cannot_be_read_is_counted():
    assert told((item(GENE), None)).value() == 0.0
    assert told((item(types=("GENE",)), ())).value() == 0.0
    assert told((item(GENE), None), (item(GENE), (GENE,))).unreadable == 1


def test_sentences_of_one_document_share_a_row():
    tally = told((item(GENE), (GENE,)), (item(GENE), ()))
    assert tally.documents == ("1",)
    assert tally.counts_dk.sum(0)[:3].tolist() == [1, 1, 2]


def test_one_prediction_is_needed_for_each_item():
    with pytest.raises(UserError, match="1 predictions for 2 items"):
        span_tally([item(), item()], [()])


def test_i_after_o_or_of_another_type_begins_no_mention():
    assert tag_spans(["I-a", "O", "B-a", "I-b", "I-a"]) == [Span(2, 3, "a")]


def test_an_alternative_finds_the_gene_and_is_not_wrong():
    gold = item(GENE, alternatives=((GENE, (Span(5, 8, "GENE"),)),))
    assert altgene_tally([gold], [(Span(5, 8, "GENE"),)]).value() == 1.0
    both = altgene_tally([gold], [(GENE, Span(5, 8, "GENE"))])
    assert both.counts_dk.tolist() == [[1, 1, 1]]
    assert altgene_tally([gold], [(Span(5, 7, "GENE"),)]).counts_dk.tolist() == [[0, 1, 1]]


def test_one_alternative_of_two_genes_finds_both():
    other, wide = Span(9, 12, "GENE"), Span(4, 12, "GENE")
    gold = item(GENE, other, alternatives=((GENE, (wide,)), (other, (wide,))))
    assert altgene_tally([gold], [(wide,)]).counts_dk.tolist() == [[2, 2, 2]]


def corrupted(tags, types, author):
    """The tags with some changed: ends moved, types swapped, mentions dropped and made up."""
    return [
        author.choice(["O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in types)])
        if author.random() < 0.08
        else tag
        for tag in tags
    ]


def valid(tags):
    """The same mentions in IOB2 without stray I-."""
    out = ["O"] * len(tags)
    for span in tag_spans(tags):
        out[span.start : span.end] = [f"B-{span.type}"] + [f"I-{span.type}"] * (
            span.end - span.start - 1
        )
    return out


def real_tags(name, split, role, types):
    from megatron_biollm.evaluation.benchmarks.bio import read_tagged

    benchmark = all_benchmarks()[name]
    sentences = read_tagged(benchmark.source(DATA, split).path(role), types)
    return [list(one.tags) for one in random.Random(3).sample(sentences, 800)]


CORPORA = [
    ("bc5cdr_disease", "test", "sentences", ("Disease",)),
    ("jnlpba", "dev", "sentences", ("protein", "DNA", "RNA", "cell_line", "cell_type")),
]


@pytest.fixture(scope="module", params=CORPORA, ids=lambda corpus: corpus[0])
def tags(request):
    """Gold tags of real sentences, corrupted ones, and the types."""
    *where, types = request.param
    gold, author = real_tags(*where, types), random.Random(7)
    return gold, [corrupted(some, types, author) for some in gold], types


def ours(gold, found, types):
    counts = count_spans([tag_spans(one) for one in gold], [tag_spans(one) for one in found], types)
    return counts.sum((0, 1))


@needs_data
def test_equals_seqeval_strict_iob2_stray_i_too(tags):
    pytest.importorskip("seqeval")
    from seqeval.metrics import f1_score, precision_score, recall_score
    from seqeval.scheme import IOB2

    gold, found, types = tags
    right, given, sought = ours(gold, found, types)
    for score, value in (
        (f1_score, 2 * right / (given + sought)),
        (precision_score, right / given),
        (recall_score, right / sought),
    ):
        assert score(gold, found, mode="strict", scheme=IOB2) == pytest.approx(value, abs=1e-12)


@needs_data
def test_equals_nervaluate_strict(tags):
    pytest.importorskip("nervaluate")
    from nervaluate.evaluator import Evaluator

    gold, found, types = tags
    found = [valid(one) for one in found]
    right, given, sought = ours(gold, found, types)
    result = Evaluator(gold, found, tags=list(types), loader="list").evaluate()
    strict = result["overall"]["strict"]
    assert (strict.correct, strict.actual, strict.possible) == (right, given, sought)


def conlleval_counts(gold, found):
    """Counts as conlleval makes them, token by token: chunks that begin and end together."""
    right = given = sought = 0
    for one, other in zip(gold, found, strict=True):
        running, last_one, last_other = None, "O", "O"
        for tag, told_tag in zip([*one, "O"], [*other, "O"], strict=True):
            if running and (_ends(last_one, tag), _ends(last_other, told_tag)) != (False, False):
                right += _ends(last_one, tag) and _ends(last_other, told_tag)
                running = None
            starts = _starts(last_one, tag), _starts(last_other, told_tag)
            sought, given = sought + starts[0], given + starts[1]
            if all(starts) and tag[2:] == told_tag[2:]:
                running = tag[2:]
            last_one, last_other = tag, told_tag
    return right, given, sought


def _starts(last, tag):
    return tag[0] == "B" or (tag[0] == "I" and (last == "O" or last[2:] != tag[2:]))


def _ends(last, tag):
    return last != "O" and (tag[0] in "BO" or last[2:] != tag[2:])


@needs_data
def test_equals_conlleval(tags):
    gold, found, types = tags
    found = [valid(one) for one in found]
    assert tuple(ours(gold, found, types)) == conlleval_counts(gold, found)


@needs_data
def test_a_corruption_is_not_perfect_and_no_warning_is_given(tags):
    gold, found, types = tags
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right, given, sought = ours(gold, found, types)
    assert 0 < right < min(given, sought)
    assert isinstance(right, np.floating)
