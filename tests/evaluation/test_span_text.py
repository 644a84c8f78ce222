import pytest

from megatron_biollm.evaluation.items import Span, SpanItem
from megatron_biollm.evaluation.span_text import align, read_spans, write_spans


def item(text, *spans, types=("Disease",)):
    return SpanItem("1.1", "1", text, tuple(spans), types=types)


def test_what_is_written_is_read_back():
    one = item("Colon cancer and ataxia", Span(0, 12, "Disease"), Span(17, 23, "Disease"))
    assert write_spans(one) == "Disease\tColon cancer\nDisease\tataxia"
    assert read_spans(write_spans(one), one) == one.spans


def test_a_repeated_mention_is_written_once_and_found_everywhere():
    one = item("ataxia or no ataxia", Span(0, 6, "Disease"), Span(13, 19, "Disease"))
    assert write_spans(one) == "Disease\tataxia"
    assert read_spans("Disease\tataxia", one) == one.spans


def test_no_mention_is_none_and_is_read_as_none():
    assert write_spans(item("Nothing here")) == "none"
    assert read_spans("None.\n", item("Nothing here")) == ()


@pytest.mark.parametrize("answer", ["", "I cannot answer.", "Gene\tataxia", "ataxia", "Disease\t"])
def test_an_answer_without_a_readable_line_is_unreadable(answer):
    assert read_spans(answer, item("ataxia")) is None


def test_a_line_of_an_unknown_text_says_nothing_but_the_answer_can_be_read():
    assert read_spans("Disease\tgout", item("ataxia")) == ()


def test_a_name_inside_a_longer_one_is_not_taken_for_itself():
    one = item("colon cancer, cancer")
    assert read_spans("Disease\tcancer\nDisease\tcolon cancer", one) == (
        Span(0, 12, "Disease"),
        Span(14, 20, "Disease"),
    )


def test_white_space_case_and_the_type_s_case_do_not_count():
    one = item("H2 - receptor", types=("protein",))
    assert read_spans("Protein\th2-Receptor", one) == (Span(0, 13, "protein"),)


@pytest.mark.parametrize(
    "line",
    ["- Disease\tcolon: cancer", "2. Disease: colon: cancer", "disease | colon: cancer",
     "Disease\\tcolon: cancer", "* Disease:colon: cancer"],
)  # fmt: skip
def test_a_list_a_colon_and_a_bar_are_read_after_a_known_type(line):
    assert read_spans(line, item("a colon: cancer")) == (Span(2, 15, "Disease"),)


@pytest.mark.parametrize("piece", [" ", "Disease:", "a", "\t", "- ", "Disease\tataxia\n"])
def test_texts_that_repeat_themselves_are_read(piece):
    one = item("ataxia " * 50)
    assert read_spans(piece * 100_000, one) in (None, ()) or len(read_spans(piece, one)) == 50


def test_a_mention_with_a_colon_is_no_type():
    assert read_spans("colon: cancer", item("a colon: cancer")) is None
    assert read_spans("colon: cancer", item("a colon: cancer", types=())) is None


def test_a_short_name_is_found_as_a_word_before_it_is_found_inside_one():
    assert align("ATP and AT", [("x", "AT")]) == (Span(8, 10, "x"),)
    assert align("xATPx", [("x", "ATP")]) == (Span(1, 4, "x"),)


def test_letters_that_grow_when_they_are_made_small_do_not_move_the_rest():
    assert align("İİ Ataxia", [("x", "ataxia")]) == (Span(3, 9, "x"),)
