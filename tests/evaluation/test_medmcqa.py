import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmarks.medmcqa import MEDMCQA
from tests.evaluation.shared_benchmarks import check_choices, needs_data, real_items

ROW = {
    "question": "Which drug?", "opa": "Aspirin", "opb": "Iron", "opc": "Zinc", "opd": "None",
    "cop": 2, "subject_name": "Dental", "id": "q1",
}  # fmt: skip


def read(tmp_path, *rows, **conventions):
    path = tmp_path / "dev.json"
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    source = MEDMCQA.source(tmp_path, files={"questions": str(path)})
    return MEDMCQA.read(source, MEDMCQA.choose(conventions))


def test_the_correct_option_is_counted_from_one_or_from_zero(tmp_path):
    (item,) = read(tmp_path, ROW)
    assert (item.id, item.group, item.choices[item.answer]) == ("q1", "Dental", "Iron")
    (item,) = read(tmp_path, ROW, cop="0-based")
    assert item.choices[item.answer] == "Zinc"


@pytest.mark.parametrize(("cop", "counted"), [(0, "1-based"), (4, "0-based"), (5, "1-based")])
def test_a_count_from_elsewhere_is_refused(tmp_path, cop, counted):
    with pytest.raises(UserError, match=rf"dev.json:2: the correct option is cop={cop}, counted"):
        read(tmp_path, ROW, {**ROW, "cop": cop}, cop=counted)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"question', "is not JSON"),
        ({key: ROW[key] for key in ROW if key != "cop"}, "has no 'cop' but"),
        ({**ROW, "opd": None}, "'opd' is None; it must be of type str"),
        ({**ROW, "cop": "2"}, "'cop' is '2'; it must be of type int"),
    ],
)
def test_another_format_is_refused_with_its_line(tmp_path, row, message):
    with pytest.raises(UserError, match=rf"dev.json:2.*{message}"):
        read(tmp_path, ROW, row)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="dev.json holds no item"):
        read(tmp_path)


def test_an_absent_file_or_split_is_named(tmp_path):
    with pytest.raises(UserError, match=r"medmcqa/dev.json is missing.*data.zip"):
        MEDMCQA.read(MEDMCQA.source(tmp_path), MEDMCQA.choose({}))
    with pytest.raises(UserError, match="no split 'test'; it has dev, train"):
        MEDMCQA.source(tmp_path, "test")


@needs_data
def test_the_real_file_holds_what_it_should():
    items = real_items(MEDMCQA)
    assert len(items) == 4183
    assert len({item.group for item in items}) == 21
    check_choices(MEDMCQA, items)
