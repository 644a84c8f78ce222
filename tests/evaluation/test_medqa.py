import json

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.benchmarks.medqa import MEDQA
from tests.evaluation.shared_benchmarks import check_choices, needs_data, real_items

ROW = {
    "question": "Which drug?",
    "options": {"A": "Aspirin", "B": "Iron"},
    "answer_idx": "B",
    "answer": "Iron",
    "meta_info": "step1",
}


def read(tmp_path, *lines, name="q.jsonl"):
    text = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines)
    (tmp_path / name).write_text(text, encoding="utf-8")
    source = MEDQA.source(tmp_path, files={"questions": str(tmp_path / name)})
    return MEDQA.read(source, MEDQA.choose({}))


def test_a_question_is_read(tmp_path):
    (item,) = read(tmp_path, ROW)
    assert (item.id, item.question, item.choices) == ("0000", "Which drug?", ("Aspirin", "Iron"))
    assert (item.answer, item.group) == (1, "step1")


def test_facts_that_lie_apart_stand_before_the_question(tmp_path):
    (item,) = read(tmp_path, {**ROW, "context": ["She is pale.", "She is tired."]})
    assert item.question == "She is pale. She is tired. Which drug?"


def test_a_table_says_the_same(tmp_path):
    head = "\tmeta_info\tquestion\tanswer_idx\tanswer\toptions"
    options = "[{'key': 'A', 'value': 'Aspirin'}, {'key': 'B', 'value': 'Iron'}]"
    row = f'0\tstep1\t"Which\ndrug?"\tB\tIron\t{options}'
    (item,) = read(tmp_path, head, row, name="q.tsv")
    assert (item.question, item.choices, item.answer) == ("Which\ndrug?", ("Aspirin", "Iron"), 1)
    with pytest.raises(UserError, match=r"q.tsv:2: the options are .* must be a list of"):
        read(tmp_path, head, row.replace(options, "[A, B]").replace("\n", " "), name="q.tsv")
    with pytest.raises(UserError, match=r"q.tsv:1 has 5 columns; it must have 6"):
        read(tmp_path, head.replace("\tanswer\t", "\t"), row, name="q.tsv")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"question": "Whi', "is not JSON .*cut off"),
        ({"question": "Which?"}, "has no 'options' but 'question'"),
        ({**ROW, "options": ["Aspirin", "Iron"]}, "'options' is .* must be of type dict"),
        ({**ROW, "answer_idx": "C"}, "the answer 'C', 'Iron', is none of the options A, B"),
        ({**ROW, "answer": "Zinc"}, "the answer 'B', 'Zinc', is none of"),
    ],
)
def test_another_format_is_refused_with_its_line(tmp_path, row, message):
    with pytest.raises(UserError, match=rf"q.jsonl:2.*{message}"):
        read(tmp_path, ROW, row)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="q.jsonl holds no item"):
        read(tmp_path)


def test_an_absent_file_is_named_with_its_download(tmp_path):
    with pytest.raises(UserError, match=r"medqa/phrases_no_exclude_test.jsonl is missing.*MedQA"):
        MEDQA.read(MEDQA.source(tmp_path), MEDQA.choose({}))
    with pytest.raises(UserError, match="medqa has no split 'best'; it has test, dev"):
        MEDQA.source(tmp_path, "best")


@needs_data
@pytest.mark.parametrize(
    ("split", "count", "options"),
    [
        ("test", 1273, 4),
        ("dev_mediq", 1272, 4),
        ("test_5_options", 1273, 5),
        ("dev_5_options", 1272, 5),
    ],
)
def test_the_real_files_hold_what_they_should(split, count, options):
    items = real_items(MEDQA, split)
    assert len(items) == count
    assert {len(item.choices) for item in items} == {options}
    check_choices(MEDQA, items)
