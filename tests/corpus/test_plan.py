from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.plan import Plan, list_files, make_plan


@pytest.fixture
def folder(tmp_path):
    for name, size in [("a.xml", 10), ("b.xml", 10), ("c.xml", 30), ("d.xml", 5)]:
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "a.xml.md5").write_text("MD5(a.xml)= 0")
    return tmp_path


def names(plan):
    return [[Path(file.path).name for file in task] for task in plan.tasks]


def test_files_fill_tasks_up_to_their_size_and_are_never_split(folder):
    plan = make_plan(list_files([str(folder)], {}), task_bytes=20)
    assert names(plan) == [["a.xml", "b.xml"], ["c.xml"], ["d.xml"]]
    assert Plan.from_json(plan.to_json()) == plan


def test_a_new_file_gets_a_task_of_its_own_and_the_others_stay(folder):
    before = make_plan(list_files([str(folder)], {}), task_bytes=20)
    (folder / "aa.xml").write_text("new")
    after = make_plan(list_files([str(folder)], {}), 20, before)
    assert names(after) == [*names(before), ["aa.xml"]]
    assert after.digest() != before.digest()


def test_a_changed_file_dissolves_its_task_only(folder):
    before = make_plan(list_files([str(folder)], {}), task_bytes=20)
    (folder / "c.xml").write_text("other")
    after = make_plan(list_files([str(folder)], {}), 20, before)
    assert names(after) == names(before)
    assert after.tasks[0] == before.tasks[0] and after.tasks[1] != before.tasks[1]


def test_a_removed_file_leaves_a_task_without_files_whose_number_is_used_again(folder):
    before = make_plan(list_files([str(folder)], {}), task_bytes=20)
    (folder / "c.xml").unlink()
    without = make_plan(list_files([str(folder)], {}), 20, before)
    assert names(without) == [["a.xml", "b.xml"], [], ["d.xml"]]
    (folder / "e.xml").write_text("e")
    assert names(make_plan(list_files([str(folder)], {}), 20, without))[1] == ["e.xml"]


def test_checksums_beside_the_files_are_no_sources(folder):
    assert len(list_files([str(folder)], {})) == 4


def test_what_the_user_calls_a_file_stands_over_detection(folder):
    files = list_files([str(folder)], {"clinical_notes": [str(folder / "d.xml")]})
    assert [file.source for file in files] == [None, None, None, "clinical_notes"]
    with pytest.raises(UserError, match=r"d.xml is named as clinical_notes and as patents"):
        list_files([], {"clinical_notes": [str(folder / "d.xml")], "patents": [str(folder)]})


def test_no_file_at_all_is_refused(tmp_path):
    with pytest.raises(UserError, match="no file to read; give paths"):
        list_files([str(tmp_path)], {})
