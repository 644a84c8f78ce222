import pytest

from megatron_biollm.evaluation.sentences import sentences


def split(text, whole=()):
    return [text[start:end] for start, end in sentences(text, whole)]


@pytest.mark.parametrize(
    "text",
    [
        "It binds (cf. Fig. 2) to E. coli DNA vs. RNA.",
        "The dose, i.e. 2.5 mg, was high (approx. 30 %).",
        "Smith et al. Showed nothing of note here.",
        "Cells of S. Aureus are one thing.",
    ],
)
def test_abbreviations_and_numbers_end_no_sentence(text):
    assert split(text) == [text]


def test_a_mark_before_a_capital_or_a_number_ends_one():
    assert split("We saw DR. This was new! 12 of them died (all).  α-tubulin? Yes.") == [
        "We saw DR.", "This was new!", "12 of them died (all).", "α-tubulin?", "Yes."
    ]  # fmt: skip


def test_a_line_ends_a_sentence_and_white_space_belongs_to_none():
    assert split("  A title\n\nText here. \n") == ["A title", "Text here."]


def test_no_sentence_ends_inside_a_mention():
    text = "Given A. B. Toxin daily. Fine."
    assert split(text, [(6, 17)]) == ["Given A. B. Toxin daily.", "Fine."]


def test_nothing_has_no_sentence():
    assert split("  \n ") == []
