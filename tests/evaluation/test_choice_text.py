import pytest

from megatron_biollm.evaluation.benchmarks.catalogue import QUESTIONS
from megatron_biollm.evaluation.choice_text import read_choice, vote
from megatron_biollm.evaluation.items import ChoiceItem
from tests.evaluation.shared_benchmarks import needs_data, real_items

HEPATITIS = ("Hepatitis A", "Hepatitis B", "Hepatitis B vaccine", "E. coli")


def item(*choices):
    return ChoiceItem("1", "1", "Which?", choices or HEPATITIS, 0)


@pytest.mark.parametrize(
    "text",
    [
        "B", "b", " B.", "(B)", "B)", "[B]", "b.", "(b)", "B:", "**B**", "**B.** Hepatitis B",
        "B. Hepatitis B", "B Hepatitis B", "B) hepatitis B", "B - it is common", "Option B",
        "B because it is common", "B\n\nExplanation: a vaccine exists.", "<answer>B</answer>",
        "Answer: B", "Answer: (B)", "answer is b", "Answer:\nB", "### Answer: B",
        "The answer is: B", "The answer is B.", "The correct answer is (B) hepatitis B.",
        "The correct option is B", "the best answer would be B, since A is acute",
        "The answer is hepatitis B.", "hepatitis b", "Hepatitis B.", '"Hepatitis B"',
        "Hepatitis B, as it is common.", r"\boxed{B}", r"So the answer is $\boxed{\text{B}}$.",
        '{"answer_choice": "B"}', '{"step_by_step_thinking": "A or C?", "answer_choice": "B. x"}',
        '{"answer": "Hepatitis B"}', '```json\n{"answer_choice": "B"}\n```', '{"answer_choice": "B',
        "It is chronic. Therefore, B.", "It is chronic.\nB", "I would choose B.",
        "Option B is the correct answer.", "It is chronic. This is most likely hepatitis B.",
        "The answer is A. Wait, it is chronic. So the answer is B.",
        "A is wrong, since it is acute.\nC is no disease.\nThe answer is B",
        "A. Hepatitis A\nB. Hepatitis B\nC. Hepatitis B vaccine\nD. E. coli\nAnswer: B",
        "B\n\nQuestion: What else?\nAnswer: C", "The answer is not A. The answer is B.",
        "The incorrect answer is: A. Then hence, B",
    ],
)  # fmt: skip
def test_an_answer_in_any_form_is_read(text):
    assert read_choice(text, item()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "", " \n", "I cannot answer this question.", "None of the above", "E", "F. Hepatitis F",
        "A/B", "A or B", "A and B", "A, B", "(A) or (B)", "Either A or B", "B>A>D>C",
        '{"answer_choice": "A/C"}', '{"answer_choice": "None of the above"}',
        '{"x": "B is true", "answer_choice": "Not determinable"}',
        "The answer is a matter of debate.", "A patient with a cough should rest.",
        "It could be hepatitis A or hepatitis B.", "It is not hepatitis B.",
        "I'm sorry, but hepatitis B cannot be judged without a test.",
        "A. Hepatitis A\nB. Hepatitis B\nC. Hepatitis B vaccine\nD. E. coli",
        "A. Venlafaxine or B. Imipramine", "Error communicating with the server", "'content'",
        '{"answer_choice": ""}', "Option A is incorrect.", "B is not right.", "C is wrong.",
        "The answer is not B.", "The answer is not hepatitis B.", "A is likely wrong.",
    ],
)  # fmt: skip
def test_what_names_no_choice_or_several_cannot_be_read(text):
    assert read_choice(text, item()) is None


def test_the_longest_of_choices_within_each_other_counts():
    assert read_choice("Hepatitis B vaccine", item()) == 2
    assert read_choice("This calls for the hepatitis B vaccine.", item()) == 2


def test_an_initial_is_no_letter():
    five = item("Hepatitis A", "E. coli", "Hepatitis C", "Hepatitis D", "Hepatitis E")
    assert read_choice("E. coli", five) == 1
    assert read_choice("The answer is E. coli.", five) == 1
    assert read_choice("E. Hepatitis E", five) == 4


def test_a_choice_that_says_none_of_the_above_is_one():
    assert read_choice("None of the above", item("x", "y", "None of the above")) == 2


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("yes", 0), ("Yes.", 0), ("No", 1), ("no, it does not", 1), ("Maybe", 2), ("C. maybe", 2),
        ("C", 2), ("Yes, because it helps.", 0), ("The answer is: no", 1), ("Answer: maybe.", 2),
        ("It helps in rats. Therefore, yes.", 0), ("The evidence is weak. The answer is maybe", 2),
        ("Final answer: **No**", 1), ("No evidence was presented.", None), ("yes or no", None),
        ("Yes/No", None), ("nothing", None), ('{"answer_choice": "B. no"}', 1),
    ],
)  # fmt: skip
def test_yes_no_and_maybe_are_read(text, index):
    assert read_choice(text, item("yes", "no", "maybe")) == index


@pytest.mark.parametrize("label", ["advise", "effect", "int", "mechanism", "CPR:3", "false"])
def test_the_name_of_a_label_is_read(label):
    labels = ("advise", "effect", "int", "mechanism", "CPR:3", "false")
    for text in (label, f" {label}\n", f"Answer: {label}", f"The answer is {label}."):
        assert read_choice(text, item(*labels)) == labels.index(label)


def test_numbers_are_told_apart():
    numbers = item("1/400", "19/400", "<5%", ">5%")
    assert read_choice(">5%", numbers) == 3
    assert read_choice("The answer is 19/400.", numbers) == 1
    assert read_choice("9/400", numbers) is None


def test_equal_choices_are_told_apart_by_letter_only():
    twice = item("Iron", "Iron", "Zinc")
    assert read_choice("Iron", twice) is None
    assert read_choice("B. Iron", twice) == 1


def test_a_letter_counts_as_such_where_choices_are_letters_too():
    points = item("B", "C", "D", "E")
    assert read_choice("C", points) == 2
    assert read_choice("E", points) == 3


def test_small_letters_that_are_choices_count_as_their_words():
    combined = item("ac", "a", "ad", "ab")
    assert read_choice("a", combined) == 1
    assert read_choice("A", combined) == 0


def test_letters_and_denials_within_a_choice_are_its_own_words():
    infections = item(
        "HIV and N. gonorrhoea", "HIV, N. gonorrhoea, and C. trachomatis", "Not known"
    )
    assert read_choice("B. HIV, N. gonorrhoea, and C. trachomatis", infections) == 1
    assert read_choice("The answer is: Not known.", infections) == 2


FORMS = (
    "{letter}", "({letter})", "{letter}. {words}", "{letter}) {words}", "({letter}) {words}",
    "The answer is: {letter}", "Therefore, option {letter} is correct.", r"$\boxed{{{letter}}}$",
    "A is a vitamin; B or C may help.\n\nThe correct answer is {letter}. {words}.",
    '{{"step_by_step_thinking": "A?", "answer_choice": "{letter}. {words}"}}',
    "**Answer: {letter}**\n\n**Explanation:** {words} is known. Option {other} is incorrect.",
    "{listed}\n\nSo the answer is ({letter}).",
)  # fmt: skip
WORDS = ("{words}", "{words}.", "The answer is {words}.")


def written(form, one, index):
    return form.format(
        letter="ABCDE"[index],
        words=one.choices[index].replace('"', "'"),
        other="ABCDE"[(index + 1) % len(one.choices)],
        listed="\n".join(f"{'ABCDE'[i]}. {choice}" for i, choice in enumerate(one.choices)),
    )


@needs_data
@pytest.mark.parametrize("benchmark", QUESTIONS[:3] + QUESTIONS[4:], ids=lambda one: one.name)
def test_each_choice_of_real_questions_is_read_in_every_form(benchmark):
    items = real_items(benchmark)[::5]
    misread = [
        (one.id, index, form)
        for one in items
        for index in range(len(one.choices))
        for form in FORMS
        if read_choice(written(form, one, index), one) != index
    ]
    assert misread == []


@needs_data
@pytest.mark.parametrize("benchmark", QUESTIONS[:3] + QUESTIONS[4:], ids=lambda one: one.name)
def test_hardly_any_choice_of_real_questions_is_misread_by_its_words(benchmark):
    """Left are choices that are letters themselves, or equal but for spaces."""
    asked = misread = 0
    for one in real_items(benchmark)[::5]:
        for index in range(len(one.choices)):
            for form in WORDS:
                asked += 1
                misread += read_choice(written(form, one, index), one) not in (index, None)
    assert misread <= 2e-3 * asked


@pytest.mark.parametrize(
    "text",
    ["the answer is ", "\n", " \n", "(", "A. ", "A. x\n", '"answer": "', "so, ", "\\boxed{", "\\"],
)
def test_a_text_that_repeats_itself_takes_no_time_and_is_no_answer(text):
    """Small models do; a pattern that goes back over all of it would hang."""
    assert read_choice("x" + 50_000 * text + "y", item()) is None


def test_most_votes_win_and_the_first_of_equals():
    assert vote([2, 1, None, 1]) == 1
    assert vote([2, 1, 1, 2]) == 2
    assert vote([None, 3]) == 3
    assert vote([None, None]) is None
