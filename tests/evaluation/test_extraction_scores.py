"""Gold scores 1, nothing scores 0, one wrong answer more costs what it must: for all ten."""

import random
import warnings

import pytest

from megatron_biollm.evaluation.items import ChoiceItem, Span, SpanItem
from megatron_biollm.evaluation.span_text import read_spans, write_spans
from megatron_biollm.evaluation.suite import BIOLLM15, all_benchmarks
from megatron_biollm.evaluation.triple_text import read_triples, write_triples
from tests.evaluation.shared_benchmarks import needs_data, real_items

pytestmark = needs_data
NAMES = BIOLLM15[5:]
NOT_HERE = {"ncbi_disease", "jnlpba", "chemprot", "biored"}


@pytest.fixture(scope="module", params=NAMES)
def asked(request):
    """A benchmark, its items, their gold predictions, and how many of them are something."""
    benchmark = all_benchmarks()[request.param]
    items = real_items(benchmark, "dev" if request.param in NOT_HERE else "test")
    gold = [_gold(one) for one in items]
    return benchmark, items, gold, sum(_size(one) for one in gold)


def _gold(item):
    if isinstance(item, ChoiceItem):
        return item.answer
    return item.spans if isinstance(item, SpanItem) else item.triples


def _size(gold):
    return int(gold > 0) if isinstance(gold, int) else len(set(gold))


def score(benchmark, items, predictions):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return benchmark.score(items, predictions, benchmark.choose({}))


def test_all_ten_are_in_the_suite_in_its_order():
    assert [name for name in all_benchmarks() if name in NAMES] == list(NAMES)


def test_gold_scores_1(asked):
    benchmark, items, gold, _ = asked
    tally = score(benchmark, items, gold)
    assert tally.value() == 1.0
    assert tally.items == len(items)
    assert tally.unreadable == 0


def test_nothing_scores_0_and_is_counted_as_unreadable(asked):
    benchmark, items, gold, _ = asked
    tally = score(benchmark, items, [None] * len(items))
    assert tally.value() == 0.0
    assert all(tally.value(name) == 0.0 for name in tally.scores)
    assert tally.unreadable == len(items)
    nothing = [0 if isinstance(one, int) else () for one in gold]
    assert score(benchmark, items, nothing).value() == 0.0


def test_one_more_wrong_answer_costs_what_it_must(asked):
    benchmark, items, gold, sought = asked
    place = next(at for at, one in enumerate(gold) if not isinstance(one, int) or one == 0)
    more = list(gold)
    more[place] = (
        1 if isinstance(gold[place], int)
        else (*gold[place], Span(0, 1, items[place].types[0])) if isinstance(items[place], SpanItem)
        else (*gold[place], ("no such", "names", "Bind"))
    )  # fmt: skip
    hand = 2 * sought / (sought + sought + 1)
    assert score(benchmark, items, more).value() == pytest.approx(hand, abs=1e-12)


def test_no_items_score_0(asked):
    assert score(asked[0], [], []).value() == 0.0


def test_gold_survives_being_written_and_read_as_lines(asked):
    benchmark, items, *_ = asked
    if isinstance(items[0], SpanItem):
        told = [read_spans(write_spans(one), one) for one in items]
        assert score(benchmark, items, told).value() >= 0.998
    elif not isinstance(items[0], ChoiceItem):
        told = [read_triples(write_triples(one), one) for one in items]
        assert score(benchmark, items, told).value() == 1.0


@pytest.mark.parametrize("name", ["chemprot", "ddi2013", "gad"])
def test_relations_of_real_pairs_score_as_scikit_learn_on_random_answers(name):
    f1_score = pytest.importorskip("sklearn.metrics").f1_score
    benchmark, author = all_benchmarks()[name], random.Random(11)
    items = real_items(benchmark, "dev" if name in NOT_HERE else "test")
    labels = range(1, len(items[0].choices))
    told = [one.answer if author.random() < 0.7 else author.randint(0, labels[-1]) for one in items]
    expected = f1_score([one.answer for one in items], told, labels=list(labels), average="micro")
    assert score(benchmark, items, told).value() == pytest.approx(expected, abs=1e-12)


def official_counts(genes, others, told):
    """TP, FP, FN of one sentence, extent by extent as `alt_eval.perl` goes through them."""

    def as_good(one, other):
        return one == other or (other in others and one.start < other.end and other.start < one.end)

    found = sum(any(as_good(gene, one) for one in told) for gene in genes)
    wrong = sum(one not in genes and one not in others for one in told)
    return found, wrong, len(genes) - found


def test_altgene_scores_as_the_official_script_on_random_answers():
    benchmark, author = all_benchmarks()["bc2gm"], random.Random(5)
    items = author.sample(real_items(benchmark), 1500)
    told, sums = [], [0, 0, 0]
    for item in items:
        others = [span for _, some in item.alternatives for span in some]
        pool = [*item.spans, *others, Span(0, 4, "GENE"), Span(2, 9, "GENE")]
        told.append(tuple({one for one in pool if author.random() < 0.4}))
        counts = official_counts(set(item.spans), set(others), told[-1])
        sums = [one + other for one, other in zip(sums, counts, strict=True)]
    found, wrong, lost = sums
    tally = score(benchmark, items, told)
    assert tally.counts_dk.sum(0).tolist() == [found, found + wrong, found + lost]
    assert 0.2 < tally.value() < 0.9
