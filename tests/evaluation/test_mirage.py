import gzip
import json
import tarfile

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmarks.bioasq import BIOASQ
from megatron_biollm.evaluation.benchmarks.medmcqa import MEDMCQA
from megatron_biollm.evaluation.benchmarks.medqa import MEDQA
from megatron_biollm.evaluation.benchmarks.pubmedqa import PUBMEDQA
from megatron_biollm.evaluation.choice_text import read_choice
from megatron_biollm.evaluation.items import ChoiceItem
from megatron_biollm.evaluation.mirage import mirage_choice, stored_texts
from tests.evaluation.shared_benchmarks import DATA, needs_data, real_items

ITEMS = [ChoiceItem(name, name, "?", ("w", "x", "y", "z"), 1) for name in ("0000", "0001")]


def answers(tmp_path, *texts, model="gpt"):
    folder = tmp_path / "medqa" / model
    folder.mkdir(parents=True)
    for number, text in enumerate(texts):
        content = text if isinstance(text, str) else json.dumps(text)
        (folder / f"test_{number:04d}.json").write_text(content)
    return folder.parent


def packed(folder):
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    return path


def test_texts_are_read_in_the_order_of_the_items(tmp_path):
    folder = answers(tmp_path, ["one"], [])
    for path in (folder, packed(folder)):
        assert stored_texts(path, "gpt", ITEMS) == ["one", ""]
        assert stored_texts(path, "gpt", ITEMS[::-1]) == ["", "one"]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ('{"x": "...", "answer_choice": "B. x"}', 1), ('{"answer_choice": "C"}', 2), ("A/B", 0),
        ("C, A, B", 2), ("D or B", 3), ("I think it is option B.", 1), ("It is: D", 3),
        ('{"answer_choice": "None of the above"}', None), ('{"answer_choice": "E. e"}', None),
        ("", None), ("x", None),
    ],
)  # fmt: skip
def test_the_first_letter_counts_and_words_do_not(text, index):
    assert mirage_choice(text, ITEMS[0]) == index


def test_a_letter_beyond_the_choices_is_none():
    assert mirage_choice("C", ChoiceItem("1", "1", "?", ("yes", "no"), 0)) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "test_0001.json is not JSON"),
        ('{"a": 1}', "must be a list of one text"),
        ("[1]", "list"),
    ],
)
def test_another_format_is_refused_with_its_file(tmp_path, text, message):
    folder = answers(tmp_path, ["one"], text)
    for path in (folder, packed(folder)):
        with pytest.raises(UserError, match=rf"test_0001.json .*{message}|{message}"):
            stored_texts(path, "gpt", ITEMS)


def test_a_damaged_archive_is_refused(tmp_path):
    path = packed(answers(tmp_path, ["one " * 5000], ["two"]))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive", gzip.compress(b"x" * 99)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"medqa.tar.gz is damaged .*download it again"):
            stored_texts(path, "gpt", ITEMS)


def test_answers_to_other_questions_and_other_models_are_refused(tmp_path):
    folder = answers(tmp_path, ["one"])
    with pytest.raises(UserError, match=r"1 questions have no answer \(0001\) and 0 answers"):
        stored_texts(folder, "gpt", ITEMS)
    with pytest.raises(UserError, match=r"0 questions .* and 1 answers no question \(0000\)"):
        stored_texts(folder, "gpt", [])
    with pytest.raises(UserError, match="no answers of 'other'"):
        stored_texts(folder, "other", ITEMS)
    with pytest.raises(UserError, match=r"none is missing.*MIRAGE"):
        stored_texts(tmp_path / "none", "gpt", ITEMS)


# Published: https://arxiv.org/abs/2402.13178, table of GPT-4 with chain of thought.
@needs_data
@pytest.mark.parametrize(
    ("benchmark", "published", "unreadable", "ours", "ours_unreadable"),
    [
        (MEDQA, 83.97, 27, 83.90, 28),
        (MEDMCQA, 69.88, 173, 69.90, 198),
        (PUBMEDQA, 39.60, 0, 39.60, 0),
        (BIOASQ, 84.30, 5, 84.30, 5),
    ],
    ids=lambda one: getattr(one, "name", None),
)
def test_the_published_scores_of_gpt_4_are_found_again(
    benchmark, published, unreadable, ours, ours_unreadable
):
    items = real_items(benchmark)
    texts = stored_texts(DATA / "pred_mirage" / f"{benchmark.name}.tar.gz", "gpt-4-32k", items)
    first = benchmark.choose({"unreadable": "first"})
    for read, value, missing in (
        (mirage_choice, published, unreadable),
        (read_choice, ours, ours_unreadable),
    ):
        predictions = [read(text, item) for text, item in zip(texts, items, strict=True)]
        tally = benchmark.score(items, predictions, first)
        assert (round(100 * tally.value("accuracy"), 2), tally.unreadable) == (value, missing)
        strict = benchmark.score(items, predictions, benchmark.choose({}))
        assert strict.value("accuracy") <= tally.value("accuracy")


# Recounted from the published files, where an empty list counts as wrong.
@needs_data
@pytest.mark.parametrize(
    ("benchmark", "counted"),
    [(MEDQA, 64.89), (MEDMCQA, 55.13), (PUBMEDQA, 36.00), (BIOASQ, 74.11)],
    ids=lambda one: getattr(one, "name", None),
)
def test_the_scores_of_gpt_3_5_with_refusals_and_empty_answers(benchmark, counted):
    items = real_items(benchmark)
    path = DATA / "pred_mirage" / f"{benchmark.name}.tar.gz"
    texts = stored_texts(path, "gpt-35-turbo-16k", items)
    said = [
        (item, mirage_choice(text, item)) for item, text in zip(items, texts, strict=True) if text
    ]
    tally = benchmark.score(
        *map(list, zip(*said, strict=True)), benchmark.choose({"unreadable": "first"})
    )
    right = tally.value("accuracy") * len(said)
    assert round(100 * right / len(items), 2) == counted
