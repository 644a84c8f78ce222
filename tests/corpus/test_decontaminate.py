"""Benchmark items are found however they were copied, and ordinary text is left alone."""

import json
import pickle
import random
from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.decontaminate.config import DecontaminateConfig
from megatron_biollm.corpus.decontaminate.decontaminator import Decontaminator
from megatron_biollm.corpus.decontaminate.items import read_items
from megatron_biollm.corpus.document import Document
from megatron_biollm.corpus.steps import Drop, Processor
from tests.corpus.made_texts import Author

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "benchmarks"

CASE = (
    "A 67-year-old man with transitional-cell carcinoma of the bladder has ringing in his ear, 1 "
    "week after neoadjuvant chemotherapy. What explains the drug's beneficial effect?"
)
SHORT = "Which enzyme is deficient?"
OPTIONS = ["Homogentisate oxidase", "Tyrosine β-hydroxylase", "Phenylalanine hydroxylase"]
MIDDLE = "Does IL-1β-blockade lower mortality after acute stroke?"


def re_spaced(text):
    return text.replace(" ", " \n\t ")


def re_punctuated(text):
    return text.replace(",", ";").replace("-", "–").replace("?", " …").replace("'", "’")


def one_word_changed(text, place):
    words = text.split()
    words[place % len(words)] = "xylophone"
    return " ".join(words)


def one_word_left_out(text, place):
    words = text.split()
    del words[place % len(words)]
    return " ".join(words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    options = dict(zip("ABC", OPTIONS, strict=True))
    records = [{"question": CASE, "options": options}, {"question": SHORT, "options": options}]
    records += [{"question": MIDDLE}]
    records += [
        {"question": "Which of the following is the most likely diagnosis?", "options": [a, b]}
        for a, b in (("Alkaptonuria of the spine", "Gout"), ("Amyloid angiopathy", "Stroke"))
    ]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, records)))
    return folder


@pytest.fixture(scope="module")
def decontaminator(folder):
    return Decontaminator(DecontaminateConfig(benchmarks=[str(folder)]))


def host(item, before=40, after=40, seed=1):
    author = Author(seed)
    return f"{author.text(before)}. {item} {author.text(after)}"


def found(decontaminator, text):
    return {match.item.split("#")[1] for match in decontaminator.overlap(text)}


@pytest.mark.parametrize("change", [str, str.upper, str.lower, re_spaced, re_punctuated])
@pytest.mark.parametrize(
    ("item", "number"),
    [(CASE, "0"), (SHORT + "\nA. " + " ".join(OPTIONS), "1"), (MIDDLE, "2")],
)
def test_copies_are_found_whatever_their_case_spacing_and_punctuation(
    decontaminator, item, number, change
):
    assert found(decontaminator, host(change(item))) == {number}


@pytest.mark.parametrize("place", range(24))
@pytest.mark.parametrize("change", [one_word_changed, one_word_left_out])
def test_one_word_changed_or_left_out_is_found_at_every_place(decontaminator, change, place):
    assert found(decontaminator, host(change(CASE, place))) == {"0"}
    if change is one_word_changed:
        assert found(decontaminator, host(change(MIDDLE, place))) == {"2"}


@pytest.mark.parametrize("labels", ["ABC", "abc", ["", "", ""]])
def test_a_short_question_is_found_with_its_options(decontaminator, labels):
    options = "\n".join(f"{k}) {option}" for k, option in zip(labels, OPTIONS, strict=True))
    assert found(decontaminator, host(f"{SHORT}\n{options}")) == {"1"}


def test_a_question_that_many_ask_is_not_an_item_without_its_options(decontaminator):
    question = "Which of the following is the most likely diagnosis?"
    assert found(decontaminator, host(question)) == set()
    assert found(decontaminator, host(f"{question} A. Amyloid angiopathy B. Stroke")) == {"4"}


def test_an_item_at_either_end_of_a_text_and_alone_is_found(decontaminator):
    for before, after in ((0, 40), (40, 0), (0, 0)):
        assert found(decontaminator, host(CASE, before, after)) == {"0"}


def test_half_an_item_is_not_the_item(decontaminator):
    words = CASE.split()
    assert found(decontaminator, host(" ".join(words[: len(words) // 2]))) == set()


def test_a_shuffled_item_is_not_the_item(decontaminator):
    words = CASE.split()
    random.Random(0).shuffle(words)
    assert found(decontaminator, host(" ".join(words))) == set()


def test_texts_without_words_and_short_ones_pass(decontaminator):
    assert [found(decontaminator, text) for text in ("", "***", "One two three")] == [set()] * 3


def test_a_match_covers_the_item_and_nothing_else(decontaminator):
    for before in ("Über µ-Opioide ﬁel ß auf. ", "Plain text. "):
        text = f"{before}{CASE} And then β more."
        (match,) = decontaminator.overlap(text)
        assert text[match.start : match.end].strip() == CASE
        assert match.coverage == 1.0


def test_a_document_is_dropped_with_the_item_named(decontaminator, folder):
    outcome = decontaminator(Document(text=host(CASE), id="1", source="text"))
    assert outcome == Drop("benchmark", f"{folder.name}/test.jsonl#0 coverage 1.00")
    clean = Document(text=host(""), id="2", source="text")
    assert decontaminator(clean) is clean


def test_a_long_document_loses_the_passage_only(folder):
    config = DecontaminateConfig(benchmarks=[str(folder)], cut_above_words=100)
    decontaminator = Decontaminator(config)
    document = Document.of_sections(
        [("first", Author(1).text(90)), ("second", f"{CASE} Rest."), ("third", f"Last. {MIDDLE}")],
        id="1",
        source="text",
    )
    left = decontaminator(document)
    assert [left.text[s.start : s.end].strip() for s in left.sections] == [
        Author(1).text(90), "Rest.", "Last."
    ]  # fmt: skip
    assert decontaminator.tally["passages_cut"] == 2


def test_an_item_deep_inside_a_huge_text_is_found_where_it_is(decontaminator):
    filling = Author(2).text(70_000)
    for copies in (1, 9):  # more words, and more characters, than are looked at together
        text = f"{filling * copies} {CASE} {filling}"
        (match,) = decontaminator.overlap(text)
        assert text[match.start : match.end].strip() == CASE


def test_passages_count_only_when_long_or_word_for_word(tmp_path):
    short = "No difference was found between the two groups."
    long = f"Mutations of the ataxin gene were absent in {Author(4).text(12)}"
    (tmp_path / "ner.txt").write_text(f"{short}\n{long}\nResults are shown.\n")
    decontaminator = Decontaminator(DecontaminateConfig(benchmarks=[str(tmp_path)]))
    assert found(decontaminator, host(short)) == {"0"}
    assert found(decontaminator, host(short.replace("two", "three"))) == set()
    assert found(decontaminator, host(long.replace("gene", "allele"))) == {"1"}
    assert found(decontaminator, host("Results are shown.")) == set()


def test_the_index_is_built_once_and_again_when_a_file_changes(tmp_path):
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": CASE}))
    config = DecontaminateConfig(
        benchmarks=[str(tmp_path / "test.jsonl")], cache=str(tmp_path / "cache")
    )
    for _ in range(2):
        assert found(Decontaminator(config), host(CASE)) == {"0"}
        assert len(list((tmp_path / "cache").iterdir())) == 1
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": MIDDLE}))
    assert found(Decontaminator(config), host(CASE)) == set()
    assert found(Decontaminator(config), host(MIDDLE)) == {"0"}


def test_a_pickled_copy_finds_the_same(folder, tmp_path):
    for cache in (None, str(tmp_path)):
        config = DecontaminateConfig(benchmarks=[str(folder)], cache=cache)
        copy = pickle.loads(pickle.dumps(Decontaminator(config)))
        assert isinstance(copy, Processor)
        assert found(copy, host(CASE)) == {"0"}


@pytest.mark.parametrize("values", [{"coverage": 0.2}, {"min_words": 3}])
def test_settings_that_match_everything_are_refused(values):
    with pytest.raises(UserError):
        DecontaminateConfig(benchmarks=["x"], **values)


def test_no_benchmarks_at_all_are_refused():
    with pytest.raises(UserError, match="benchmarks is empty"):
        Decontaminator(DecontaminateConfig())


@pytest.mark.skipif(not SHARED.exists(), reason="the shared benchmark files are not here")
def test_real_items_are_found_and_made_texts_are_clean():
    paths = [str(SHARED / name) for name in ("medqa", "medmcqa", "pubmedqa", "mmlu_medical")]
    decontaminator = Decontaminator(DecontaminateConfig(benchmarks=paths))
    items, draw = [item for item in read_items(paths) if not item.passage], random.Random(5)
    for item in draw.sample(items, 150):
        asked = "\n".join([item.text, *(f"{c}. {o}" for c, o in zip("ABCDE", item.options))])  # noqa: B905
        for copy in (asked, asked.upper(), one_word_changed(asked, draw.randrange(500))):
            assert decontaminator.overlap(host(copy)), copy
    assert not any(decontaminator.overlap(Author(n).text(400)) for n in range(50))
