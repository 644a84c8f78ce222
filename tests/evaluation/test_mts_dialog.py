import csv

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmarks.mts_dialog import (
    MTS_DIALOG,
    MTS_DIALOG_SECTION,
    SECTIONS,
)
from tests.evaluation.shared_benchmarks import check_choices, needs_data, real_items

pytest.importorskip("rouge_score")
HEAD = ["ID", "section_header", "section_text", "dialogue"]
ROW = ["0", "GENHX", "She has back pain.", "Doctor: Where?\nPatient: My back."]


def read(tmp_path, *rows, benchmark=MTS_DIALOG, **conventions):
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    source = benchmark.source(tmp_path, files={"table": str(path)})
    return benchmark.read(source, benchmark.choose(conventions))


def test_a_conversation_and_its_section_are_read(tmp_path):
    (item,) = read(tmp_path, HEAD, ROW)
    assert (item.id, item.text, item.references) == ("0", ROW[3], ("She has back pain.",))
    assert (item.part, item.group) == ("history of present illness", "")
    (item,) = read(tmp_path, HEAD, ROW, section="told")
    assert item.group == "history of present illness"


def test_the_section_is_a_choice_of_twenty(tmp_path):
    (item,) = read(tmp_path, HEAD, ROW, benchmark=MTS_DIALOG_SECTION)
    assert len(item.choices) == len(set(item.choices)) == 20
    assert item.choices[item.answer] == SECTIONS["GENHX"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([HEAD, ROW, ["1", "GENHIX", "x", "y"]], "t.csv:4: the section is 'GENHIX'; .* FAM/SOCHX"),
        ([HEAD, ["1", "GENHX", "x"]], "t.csv:2 has 3 columns; it must have 4"),
        ([["ID", "header", "text", "dialogue"], ROW], "t.csv:1 has the columns"),
        ([HEAD], "t.csv holds no item"),
    ],
)
@pytest.mark.parametrize("benchmark", [MTS_DIALOG, MTS_DIALOG_SECTION], ids=lambda one: one.name)
def test_another_format_is_refused_with_its_line(tmp_path, rows, message, benchmark):
    with pytest.raises(UserError, match=message):
        read(tmp_path, *rows, benchmark=benchmark)


def test_an_absent_file_is_named_with_its_download(tmp_path):
    with pytest.raises(UserError, match=r"TestSet-1-MEDIQA-Chat-2023.csv is missing.*MTS-Dialog"):
        MTS_DIALOG.read(MTS_DIALOG.source(tmp_path), MTS_DIALOG.choose({}))


@needs_data
@pytest.mark.parametrize(
    ("split", "count"), [("test1", 200), ("test2", 200), ("valid", 100), ("train", 1201)]
)
def test_the_real_files_hold_what_they_should(split, count):
    items = real_items(MTS_DIALOG, split)
    assert len(items) == count
    check_choices(MTS_DIALOG_SECTION, real_items(MTS_DIALOG_SECTION, split))
    some, conventions = items[:10], MTS_DIALOG.choose({})
    gold = [item.references[0] for item in some]
    assert MTS_DIALOG.score(some, gold, conventions).value() == 1.0
    assert MTS_DIALOG.score(some, ["", *gold[1:]], conventions).value() == pytest.approx(0.9)
    assert MTS_DIALOG.score(some, [None] * 10, conventions).value() == 0.0
