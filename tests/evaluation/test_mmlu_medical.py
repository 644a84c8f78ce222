import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmarks.mmlu_medical import (
    MMLU_MEDICAL,
    NINE_SUBJECTS,
    SIX_SUBJECTS,
)
from tests.evaluation.shared_benchmarks import check_choices, needs_data, real_items

ROW = '"Which,\none?",Iron,Zinc,Gold,Lead,C\n'


def folder(tmp_path, subjects=NINE_SUBJECTS, **rows):
    place = tmp_path / "mmlu_medical" / "test"
    place.mkdir(parents=True)
    for subject in subjects:
        (place / f"{subject}_test.csv").write_text(rows.get(subject, ROW))
    return tmp_path


def read(data, split="", **conventions):
    return MMLU_MEDICAL.read(MMLU_MEDICAL.source(data, split), MMLU_MEDICAL.choose(conventions))


def test_six_subjects_are_asked_or_nine(tmp_path):
    data = folder(tmp_path)
    assert tuple(item.group for item in read(data)) == SIX_SUBJECTS
    assert tuple(item.group for item in read(data, subjects="9")) == NINE_SUBJECTS
    item = read(data)[0]
    assert (item.id, item.question) == ("anatomy/0000", "Which,\none?")
    assert (item.choices, item.answer) == (("Iron", "Zinc", "Gold", "Lead"), 2)


def test_the_average_is_over_questions_or_over_subjects(tmp_path):
    items = read(folder(tmp_path, anatomy=ROW * 5))
    predictions = [2] * 5 + [0] * 5
    for average, name, value in (("micro", "accuracy", 0.5), ("macro", "group_accuracy", 1 / 6)):
        conventions = MMLU_MEDICAL.choose({"average": average})
        tally = MMLU_MEDICAL.score(items, predictions, conventions)
        assert (tally.headline, tally.value()) == (name, pytest.approx(value))
    assert tally.parts["anatomy"].value() == 1.0


def test_a_subject_without_its_file_is_refused(tmp_path):
    data = folder(tmp_path, SIX_SUBJECTS)
    with pytest.raises(UserError, match=r"test has 0 files high_school_biology_\*.csv; .*data.tar"):
        read(data, subjects="9")
    (data / "mmlu_medical/test/anatomy_old.csv").write_text(ROW)
    with pytest.raises(UserError, match="test has 2 files anatomy"):
        read(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "anatomy_test.csv holds no item"),
        (ROW + "Which?,Iron,Zinc,C\n", "anatomy_test.csv:3 has 4 columns; it must have 6"),
        (ROW + "Which?,Iron,Zinc,Gold,Lead,E\n", "csv:3: the answer is 'E'; it must be A, B"),
        (ROW + "Which?,Iron,Zinc,Gold,Lead,\n", "csv:3: the answer is ''"),
        (ROW + '"Which?,Iron,Zi', "anatomy_test.csv:3 is no table .*cut off"),
    ],
)
def test_another_format_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(folder(tmp_path, anatomy=text))


def test_an_absent_folder_is_named_with_its_download(tmp_path):
    with pytest.raises(
        UserError, match=r"mmlu_medical/test is missing.*data.tar .*--file BENCHMARK.folder"
    ):
        read(tmp_path)


@needs_data
def test_the_real_files_hold_what_they_should():
    assert len(real_items(MMLU_MEDICAL, "dev", subjects="9")) == 45
    items = real_items(MMLU_MEDICAL, "val", subjects="9")
    assert len(items) == 208
    assert sum(item.group == "high_school_biology" for item in items) == 34
    check_choices(MMLU_MEDICAL, items, subjects="9")
    check_choices(MMLU_MEDICAL, real_items(MMLU_MEDICAL, "val"))
