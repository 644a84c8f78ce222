import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.items import TextItem
from megatron_biollm.evaluation.summaries import KINDS, score_texts

pytest.importorskip("rouge_score")


def item(*references, name="1", document="", part=""):
    return TextItem(name, document or name, "Doctor: ...", references, part=part)


def values(tally):
    return [tally.value(kind) for kind in KINDS]


def test_shared_words_are_counted_by_hand():
    # Of four and three words two are shared, in order, and no two neighbours.
    tally = score_texts([item("she has a cough")], ["she had cough"])
    assert values(tally) == pytest.approx([4 / 7, 0, 4 / 7, 4 / 7])
    # Of three and two neighbours, one is shared.
    tally = score_texts([item("she has a cough")], ["a cough today"])
    assert values(tally)[:2] == pytest.approx([4 / 7, 2 / 5])


def test_rouge_lsum_sees_lines():
    tally = score_texts([item("one two\nthree four")], ["three four\none two"])
    assert tally.value("rougeL") == pytest.approx(0.5)
    assert tally.value("rougeLsum") == pytest.approx(1.0)


def test_the_reference_that_fits_best_counts():
    assert score_texts([item("no cough", "she has fever")], ["she has fever"]).value() == 1.0


def test_stems_are_the_same_word_where_asked():
    asked, said = [item("she was coughing")], ["she was coughed"]
    assert score_texts(asked, said).value() == pytest.approx(2 / 3)
    assert score_texts(asked, said, "with").value() == 1.0


def test_nothing_written_scores_nothing_and_is_counted():
    items = [item("a b", name="1", part="x"), item("a b", name="2", part="y")]
    tally = score_texts(items, [None, "a b"])
    assert (tally.value(), tally.unreadable, tally.items) == (0.5, 1, 2)
    assert {name: part.value() for name, part in tally.parts.items()} == {"x": 0.0, "y": 1.0}
    assert score_texts(items, ["", None]).value() == 0.0


def test_texts_of_a_document_stand_together():
    items = [item("a", name="1", document="d"), item("a", name="2", document="d")]
    tally = score_texts(items, ["a", "b"])
    assert (tally.documents, tally.counts_dk.shape[0], tally.value()) == (("d",), 1, 0.5)


def test_what_counts_mean_does_not_depend_on_the_items():
    tally = score_texts([item("a b c")], ["a b d"])
    of_nothing = score_texts([], [])
    total = np.stack([tally.counts_dk.sum(0)] * 2)
    for kind in KINDS:
        assert of_nothing.scores[kind](total).tolist() == [tally.value(kind)] * 2
        assert of_nothing.value(kind) == 0.0


def test_a_prediction_of_another_kind_or_number_is_refused():
    with pytest.raises(UserError, match="prediction for 1 is 3; it must be a text"):
        score_texts([item("a")], [3])
    with pytest.raises(UserError, match="2 predictions for 1 items"):
        score_texts([item("a")], ["a", "b"])
