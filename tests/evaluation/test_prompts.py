from dataclasses import replace

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.asking import Asking
from megatron_biollm.evaluation.benchmarks.bioasq_texts import BIOASQ_SUMMARY
from megatron_biollm.evaluation.fewshot import Examples
from megatron_biollm.evaluation.items import (
    ChoiceItem,
    LabelsItem,
    NumberItem,
    Span,
    SpanItem,
    TextItem,
    TripleItem,
)
from megatron_biollm.evaluation.prompts import (
    Wording,
    max_gen_toks,
    read_answer,
    read_answers,
    stops,
    wording,
)
from tests.evaluation.quiz import QUIZ

ITEMS = [
    ChoiceItem("c", "c", "Which organ?", ("liver", "heart"), 1, context="A finding."),
    SpanItem("s", "s", "Aspirin and heparin.", (Span(0, 7, "Drug"),), types=("Drug",)),
    TripleItem("t", "t", "A inhibits B.", (("A", "B", "inhibitor"),), relations=("inhibitor",)),
    TextItem("x", "x", "Doctor: Hello.", ("The patient was greeted.",), group="HPI"),
    LabelsItem("l", "l", "Cells grow.", ("growth", "death"), ("growth",)),
    NumberItem("n", "n", "Kd of A to B", 7.25),
]
WORDS = Wording("Do it.", "Text", lettered=True)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: type(item).__name__)
def test_the_right_answer_as_it_is_written_is_read_as_right(item):
    right = {
        ChoiceItem: 1,
        SpanItem: (Span(0, 7, "Drug"),),
        TripleItem: (("A", "B", "inhibitor"),),
        TextItem: "The patient was greeted.",
        LabelsItem: ("growth",),
        NumberItem: 7.25,
    }[type(item)]
    assert read_answer(WORDS.answer(item), item) == right


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: type(item).__name__)
def test_an_answer_does_not_hold_what_ends_it(item):
    for stop in stops(item, Asking(), WORDS):
        assert stop not in WORDS.answer(item)
    assert stops(item, Asking(chat=True), WORDS) == []
    assert max_gen_toks(item, Asking(max_gen_toks=7), WORDS) == 7


def test_a_prompt_shows_examples_as_they_are_asked():
    first, second = ITEMS[0], ChoiceItem("d", "d", "And this?", ("skin", "bone"), 0)
    assert WORDS.plain(second, [first]) == (
        "Do it.\n\n"
        "Context: A finding.\nText: Which organ?\nA. liver\nB. heart\nAnswer: B\n\n"
        "Text: And this?\nA. skin\nB. bone\nAnswer:"
    )
    assert WORDS.messages(second, [first]) == [
        {"role": "system", "content": "Do it."},
        {
            "role": "user",
            "content": "Context: A finding.\nText: Which organ?\nA. liver\nB. heart",
        },
        {"role": "assistant", "content": "B"},
        {"role": "user", "content": "Text: And this?\nA. skin\nB. bone"},
    ]
    assert WORDS.plain(ITEMS[1]).endswith("Text: Aspirin and heparin.\nMentions:\n")


def test_choices_that_all_questions_share_are_named_by_their_words():
    shared = [ChoiceItem(str(i), str(i), f"Q{i}?", ("yes", "no"), 0) for i in range(2)]
    words = wording(QUIZ, shared, Asking())
    assert words.choices(shared[0]) == ("yes", "no") and not words.lettered
    assert words.question(shared[1]) == "Question: Q1?\nOptions: yes, no"
    assert wording(QUIZ, shared, Asking(continuation="letter")).lettered
    other = ChoiceItem("3", "3", "Q3?", ("no", "yes"), 0)
    assert wording(QUIZ, [*shared, other], Asking()).lettered
    assert not wording(QUIZ, [*shared, other], Asking(continuation="text")).lettered


def test_written_answers_to_questions_are_called_so():
    asked = [TextItem(str(i), str(i), "What is it?", ("a thing",)) for i in range(3)]
    words = wording(BIOASQ_SUMMARY, asked, Asking())
    assert words.plain(asked[0]).endswith("Question: What is it?\nAnswer:\n")
    words = wording(replace(QUIZ, task="extra"), [ITEMS[3]], Asking())
    assert words.plain(ITEMS[3]).endswith("Section: HPI\nText: Doctor: Hello.\nNote:\n")


def test_a_chain_of_thought_is_asked_for_in_both_forms():
    words = wording(QUIZ, ITEMS[:1], Asking(method="cot"))
    assert words.plain(ITEMS[0]).endswith("Answer: Let's think step by step.")
    assert words.messages(ITEMS[0])[-1]["content"].endswith("\nLet's think step by step.")
    texts = ["It is A. The answer is A.", "The answer is B.", "So the answer is B.", "No idea"]
    assert read_answers(texts, ITEMS[0]) == 1


def test_paraphrases_take_the_place_of_the_instruction():
    assert wording(QUIZ, ITEMS[:1], Asking(paraphrase=2)).instruction == "Say what is so."
    with pytest.raises(UserError, match="quiz has 2 paraphrases"):
        wording(QUIZ, ITEMS[:1], Asking(paraphrase=3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "guess"}, "method='guess' is none of auto"),
        ({"num_fewshot": -1}, "num_fewshot=-1 must be 0 or more"),
        ({"samples": 5}, "samples=5 needs method=cot"),
        ({"method": "cot", "num_fewshot": 2}, "hold no chains of thought"),
        ({"temperature": 0.0}, "temperature=0.0 must be above 0"),
    ],
)
def test_ways_of_asking_that_make_no_sense_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        Asking(**values)


def questions(count, **fields):
    return [
        ChoiceItem(f"i{i}", f"d{i // 2}", f"Question {i}?", ("a", "b"), 0, **fields)
        for i in range(count)
    ]


def test_examples_are_the_same_for_all_and_differ_by_seed():
    pool = questions(20)
    item = ChoiceItem("x", "x", "Other?", ("a", "b"), 1)
    chosen = Examples(pool, 3, seed=1).of(item)
    assert len(chosen) == 3 and Examples(pool, 3, seed=1).of(item) == chosen
    assert any(Examples(pool, 3, seed=seed).of(item) != chosen for seed in (2, 3))


def test_an_item_is_never_its_own_example():
    pool = questions(6)
    twin = ChoiceItem("elsewhere", "x", "question  2?", ("a", "b"), 0)
    assert pool[2] not in Examples(pool, 5, seed=0).of(twin)
    for item in pool:
        shown = Examples(pool, 4, seed=0, same_split=True).of(item)
        assert all(one.document != item.document for one in shown)
    with pytest.raises(UserError, match="of 6 items, 5 may be examples for elsewhere"):
        Examples(pool, 6, seed=0).of(twin)


def test_examples_may_be_of_the_items_own_group():
    pool = questions(4, group="anatomy") + questions(4, group="genetics")
    item = ChoiceItem("x", "x", "Other?", ("a", "b"), 1, group="genetics")
    assert {one.group for one in Examples(pool, 3, 0, by_group=True).of(item)} == {"genetics"}


def test_too_few_examples_are_refused():
    with pytest.raises(UserError, match="5 examples are asked for, .* has 4"):
        Examples(questions(4), 5, seed=0)
