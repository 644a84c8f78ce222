import threading

import pytest

from megatron_biollm.feedback import desk
from megatron_biollm.feedback.database import open_database
from megatron_biollm.feedback.judging import Judgement, save
from tests.feedback.project import Project, pair


def take(project, name):
    return desk.next_item(project.connection, project.account(name), project.clock())


def judge(project, name, item_id, preference="tie"):
    return save(
        project.connection, item_id, project.account(name), Judgement(preference),
        revision=0, now=project.clock(),
    )  # fmt: skip


def judge_all(project, name, preference="tie"):
    done = []
    while (item_id := take(project, name)) is not None:
        judge(project, name, item_id, preference)
        done.append(item_id)
    return done


def test_every_item_is_judged_once_and_the_doubled_ones_twice(make_project):
    project = make_project([pair(n) for n in range(40)], double_share=0.3)
    for name in ("Ada", "Ben", "Cleo"):
        judge_all(project, name)
    for row in project.rows("SELECT id, ratings_wanted FROM item"):
        (count,) = project.row("SELECT count(*) FROM judgement WHERE item_id = ?", row["id"])
        assert count == row["ratings_wanted"]
    doubled = project.row("SELECT count(*) FROM item WHERE ratings_wanted = 2")[0]
    assert 5 <= doubled <= 19  # 12 expected of 40, by a hash


def test_doubled_items_are_the_same_in_every_database(tmp_path):
    wanted = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        items = [pair(n) for n in range(20)]
        project = Project(tmp_path / name, items if name == "one" else items[::-1], {})
        wanted.append({r["key"]: r["ratings_wanted"] for r in project.rows("SELECT * FROM item")})
        project.connection.close()
    assert wanted[0] == wanted[1] and {1, 2} == {*wanted[0].values()}


def test_every_gold_item_goes_to_everybody(make_project):
    project = make_project([pair(0, gold="first"), pair(1)])
    assert sorted(len(judge_all(project, name)) for name in ("Ada", "Ben")) == [1, 2]


def test_a_lease_keeps_an_item_until_it_ends(make_project):
    project = make_project([pair(0)], lease_minutes=30)
    item_id = take(project, "Ada")
    project.clock.now += 29 * 60
    assert take(project, "Ben") is None
    project.clock.now += 2 * 60
    assert take(project, "Ben") == item_id
    judge(project, "Ben", item_id)
    assert judge(project, "Ada", item_id).extra  # late, and still not lost
    assert project.row("SELECT count(*) FROM judgement")[0] == 2


def test_what_others_finished_leaves_a_desk_unless_something_was_typed(make_project):
    project = make_project([pair(0)])
    for name in ("Ada", "Cleo"):
        item_id = take(project, name)
        project.clock.now += 31 * 60
    ada = project.account("Ada")["id"]
    desk.save_draft(
        project.connection, item_id, ada, {"rationale": "so"}, number=1, revision=0,
        now=project.clock(),
    )  # fmt: skip
    project.clock.now += 31 * 60
    judge(project, "Ben", take(project, "Ben"))
    assert take(project, "Ada") == item_id
    assert take(project, "Cleo") is None


def test_an_item_put_off_comes_back_last_with_its_draft(make_project):
    project = make_project([pair(0), pair(1)])
    first = take(project, "Ada")
    desk.put_off(project.connection, first, project.account("Ada")["id"], project.clock())
    second = take(project, "Ada")
    assert second != first
    judge(project, "Ada", second)
    assert take(project, "Ada") == first


def test_items_of_the_own_field_come_first(make_project):
    items = [pair(n, specialty="Ada's field" if n == 7 else "") for n in range(9)]
    project = make_project(items)
    project.connection.execute("UPDATE item SET specialty = 'other' WHERE id = 3")
    order = judge_all(project, "Ada")
    assert order[0] == 8 and order[-1] == 3


def test_the_order_of_answers_is_drawn_by_annotator_and_item_and_kept(make_project):
    project = make_project([pair(n, gold="first") for n in range(60)])
    for name in ("Ada", "Ben"):
        judge_all(project, name)
    places = {
        name: [r["left_position"] for r in project.rows(
            "SELECT left_position FROM judgement JOIN annotator ON annotator.id = annotator_id "
            "WHERE name = ? ORDER BY item_id", name)]
        for name in ("Ada", "Ben")
    }  # fmt: skip
    assert all(15 <= sum(found) <= 45 for found in places.values())
    assert places["Ada"] != places["Ben"]
    again = desk.assignment(project.connection, 1, project.account("Ada")["id"])
    assert again["left_position"] == places["Ada"][0]


def test_annotators_see_items_in_different_orders(make_project):
    project = make_project([pair(n, gold="first") for n in range(10)])
    assert judge_all(project, "Ada") != judge_all(project, "Ben")


def test_items_asked_for_at_once_go_to_one_each(make_project):
    project = make_project(
        [pair(n) for n in range(6)], people={f"p{n}": "annotator" for n in range(6)}
    )
    found = []

    def ask(name):
        connection = open_database(project.path)
        found.append(desk.next_item(connection, project.account(name), project.clock()))
        connection.close()

    accounts = {f"p{n}": project.account(f"p{n}") for n in range(6)}
    project.account = accounts.get
    threads = [threading.Thread(target=ask, args=[name]) for name in accounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [1, 2, 3, 4, 5, 6]


def test_many_at_once_neither_lose_nor_repeat_a_judgement(make_project):
    people = {f"p{n}": "annotator" for n in range(4)}
    project = make_project([pair(n) for n in range(12)], double_share=0.5, people=people)
    project.app.config["BUSY_TIMEOUT_S"] = 30.0
    visitors = [project.visitor(name) for name in people]
    threads = [threading.Thread(target=visitor.judge_all) for visitor in visitors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for row in project.rows("SELECT id, ratings_wanted FROM item"):
        (count,) = project.row("SELECT count(*) FROM judgement WHERE item_id = ?", row["id"])
        assert count == row["ratings_wanted"]


def test_a_draft_that_was_overtaken_on_its_way_is_left_out(make_project):
    project = make_project([pair(0)])
    item_id, ada = take(project, "Ada"), project.account("Ada")["id"]

    def keep(text, number, revision=0):
        return desk.save_draft(
            project.connection, item_id, ada, {"rationale": text}, number=number,
            revision=revision, now=project.clock(),
        )  # fmt: skip

    assert keep("new", 5) and not keep("old", 4)
    judge(project, "Ada", item_id)
    assert not keep("of the time before saving", 6)
    assert desk.assignment(project.connection, item_id, ada)["draft"] is None


@pytest.mark.parametrize("name", ["model-one", "model-two", "gold"])
def test_what_a_page_may_show_names_no_model(make_project, name):
    project = make_project([pair(0, gold="first", source="model-one", meta={"m": "model-two"})])
    assert name not in str(desk.pair(project.connection, 1, 0))
