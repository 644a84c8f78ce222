"""The pages, asked for as a browser would."""

import json
import re
import resource
import sqlite3

import pytest

from megatron_biollm.feedback.database import open_database
from megatron_biollm.feedback.words import CATEGORIES, PREFERENCES
from tests.feedback.project import BETTER_A, PASSWORD, pair

TYPED = {
    "preference": "b", "strength": "1", "category_a": "wrong_dose", "unsafe_a": "1",
    "error_b": "1", "rationale": "Zehnfache Dosis – 十倍 – عشرة", "correction": "5 mg\n\ntwice",
    "correction_base": "b",
}  # fmt: skip


def test_two_annotators_judge_the_same_doubled_item(make_project):
    project = make_project([pair(0)], double_share=1.0)
    for name, fields in (("Ada", BETTER_A), ("Ben", TYPED)):
        visitor = project.visitor(name)
        address = visitor.next()
        assert "question 0" in visitor.get(address).text
        assert visitor.save(address, fields).headers["Location"] == "/next"
        assert visitor.next() is None
    ben = project.row("SELECT * FROM judgement WHERE strength = 1")
    assert ben["rationale"] == TYPED["rationale"] and ben["correction"] == TYPED["correction"]
    assert (ben["unsafe_a"], ben["category_a"], ben["error_b"]) == (1, "wrong_dose", 1)
    assert project.row("SELECT count(*) FROM judgement")[0] == 2


def test_the_page_says_what_can_be_said_and_names_no_model(make_project):
    project = make_project([pair(0, source="model-one-file", external_id="model-two-7")])
    visitor = project.visitor("Ada")
    page = visitor.get(visitor.next()).text
    for words in [*PREFERENCES.values(), *CATEGORIES.values()]:
        assert words in page
    assert "model-one" not in page and "model-two" not in page


def test_the_answers_stand_in_the_stored_order(make_project):
    project = make_project([pair(n) for n in range(8)])
    visitor = project.visitor("Ada")
    seen = set()
    while address := visitor.next():
        page = visitor.get(address).text
        a, b = re.findall(r'data-side="[ab]">([^<]*)</div>', page)
        place = project.row("SELECT * FROM assignment WHERE item_id = ?", address.split("/")[-1])
        assert (a.split()[0], b.split()[0]) == [("first", "second"), ("second", "first")][
            place["left_position"]
        ]
        seen.add(place["left_position"])
        visitor.save(address)
    assert seen == {0, 1}


def test_a_draft_is_there_after_a_reload(make_project):
    project = make_project()
    visitor = project.visitor("Ada")
    address = visitor.next()
    script = {"X-Requested-With": "script"}
    fields = {**visitor.hidden(address), **TYPED, "draft_number": "3", "active_s": "12"}
    assert visitor.post(f"{address}/draft", fields, headers=script).json == {"kept": True}
    page = visitor.get(address).text
    for text in ("Zehnfache Dosis – 十倍 – عشرة", "5 mg\n\ntwice", "unfinished draft"):
        assert text in page
    assert 'value="b" checked' in page and 'value="wrong_dose" selected' in page
    hidden = visitor.hidden(address)
    assert (hidden["draft_number"], hidden["active_s"]) == ("3", "12")
    assert project.visitor("Ada").next() == address  # in another browser too


def test_without_the_script_a_button_keeps_the_draft(make_project):
    visitor = make_project().visitor("Ada")
    address = visitor.next()
    answer = visitor.save(address, {"rationale": "half a thou", "action": "draft"})
    assert answer.status_code == 302 and answer.headers["Location"] == address
    assert "half a thou" in visitor.get(address).text


def test_what_is_missing_is_said_beside_what_was_typed(make_project):
    visitor = make_project().visitor("Ada")
    address = visitor.next()
    answer = visitor.save(address, {"preference": "a", "rationale": "because"})
    assert answer.status_code == 422
    assert "Say how much better it is." in answer.text and "because" in answer.text
    assert 'aria-describedby="problem-strength"' in answer.text


def test_a_second_window_is_shown_the_first_ones_words_and_keeps_its_own(make_project):
    project = make_project()
    visitor = project.visitor("Ada")
    address = visitor.next()
    other = visitor.hidden(address)
    visitor.save(address, {"preference": "tie", "rationale": "window one"})
    answer = visitor.post(address, {**other, **TYPED})
    assert answer.status_code == 409
    assert "window one" in answer.text and TYPED["rationale"] in answer.text
    new = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', answer.text))
    assert visitor.post(address, {**new, **TYPED}).status_code == 302
    assert project.row("SELECT * FROM judgement")["revision"] == 2


def test_a_judgement_can_be_changed_later(make_project):
    project = make_project()
    visitor = project.visitor("Ada")
    address = visitor.next()
    visitor.save(address)
    assert address in visitor.get("/mine").text
    assert 'value="a" checked' in visitor.get(address).text
    visitor.save(address, {"preference": "cannot_judge"})
    assert project.row("SELECT preference FROM judgement")[0] == "cannot_judge"


def test_a_locked_database_hands_everything_back_and_trying_again_saves_it(make_project):
    project = make_project()
    visitor = project.visitor("Ada")
    address = visitor.next()
    fields = {**visitor.hidden(address), **TYPED}
    locker = sqlite3.connect(project.path, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    answer = visitor.post(address, fields)
    assert answer.status_code == 503 and "database is busy" in answer.text
    assert TYPED["rationale"] in answer.text and TYPED["correction"] in answer.text
    draft = visitor.post(f"{address}/draft", fields, headers={"X-Requested-With": "script"})
    assert draft.status_code == 503 and draft.json == {"problem": "The database is busy"}
    locker.execute("ROLLBACK")
    locker.close()
    assert visitor.post(address, shown_form(answer.text)).status_code == 302
    saved = project.row("SELECT * FROM judgement")
    assert [saved[n] for n in ("rationale", "correction", "preference", "category_a")] == [
        TYPED[n] for n in ("rationale", "correction", "preference", "category_a")
    ]


def test_a_full_disk_hands_everything_back_and_trying_again_saves_it(make_project):
    project = make_project()
    visitor = project.visitor("Ada")
    address = visitor.next()
    long = {**TYPED, "correction": "5 mg " * 20_000}
    fields = {**visitor.hidden(address), **long}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    wal = project.path.with_name("study.db-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 100, limits[1]))
    try:
        answer = visitor.post(address, fields)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert answer.status_code == 503 and "The disk is full" not in answer.headers
    assert "disk is full" in answer.text and long["correction"].strip() in answer.text
    assert project.row("SELECT count(*) FROM judgement")[0] == 0
    assert visitor.post(address, shown_form(answer.text)).status_code == 302
    assert project.row("SELECT correction FROM judgement")[0] == long["correction"].strip()


def shown_form(page: str) -> dict:
    """The fields of the page's own form, the last one."""
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))
    return fields | dict(re.findall(r'<textarea name="(\w+)"[^>]*>([^<]*)</textarea>', page))


def test_a_session_that_ended_hands_everything_back(make_project):
    project = make_project()
    visitor = project.visitor("Ada")
    address = visitor.next()
    fields = {**visitor.hidden(address), **TYPED}
    visitor.client.delete_cookie("feedback")
    answer = visitor.post(address, fields)
    assert answer.status_code == 401 and TYPED["rationale"] in answer.text
    again = project.visitor("Ada")
    stale = again.post(address, shown_form(answer.text))
    assert stale.status_code == 400 and TYPED["correction"] in stale.text
    assert again.post(address, shown_form(stale.text)).status_code == 302
    assert project.row("SELECT rationale FROM judgement")[0] == TYPED["rationale"]


def test_a_page_of_the_annotator_before_does_not_speak_for_the_next_one(make_project):
    project = make_project([pair(0)], double_share=1.0)
    ada, ben = project.visitor("Ada"), project.visitor("Ben")
    address = ada.next()
    assert ben.next() == address
    left_behind = ada.hidden(address) | {"csrf_token": ben.token}
    assert ben.client.post(address, data={**left_behind, **TYPED}).status_code == 404
    assert project.row("SELECT count(*) FROM judgement")[0] == 0


def test_text_of_any_kind_stays_text(make_project):
    nasty = '<script>alert(1)</script> & "quoted" \u202eright to left\u0007'
    item = pair(0)
    answers = (type(item.answers[0])(nasty, "m"), item.answers[1])
    visitor = make_project([type(item)(item.prompt, answers)]).visitor("Ada")
    page = visitor.get(visitor.next()).text
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert "\u0007" not in page and "\u202e" in page
    visitor.save(visitor.next(), {**BETTER_A, "rationale": nasty})
    assert "<script>alert" not in visitor.get("/item/1").text


def test_an_adjudicator_sees_what_was_said_without_names_and_settles_it(make_project):
    project = make_project([pair(0)], double_share=1.0)
    project.visitor("Ada").judge_all({**BETTER_A, "rationale": "clearer"})
    project.visitor("Ben").judge_all({"preference": "cannot_judge"})
    judge = project.visitor("Judge")
    assert "could not be judged" in judge.get("/adjudication").text
    address = judge.next()
    page = judge.get(address).text
    assert "clearer" in page and "Expert 2" in page
    assert "Ada<" not in page and "Ben<" not in page
    judge.save(address, {"preference": "both_unsafe", "category_a": "other", "category_b": "bias"})
    assert project.row("SELECT adjudicates FROM judgement ORDER BY id DESC")[0] == 1
    assert judge.next() is None and "queue is empty" in judge.get("/next").text


def test_the_letters_of_earlier_opinions_are_those_of_the_page(make_project):
    project = make_project([pair(n) for n in range(6)], double_share=1.0)
    for name, wanted in (("Ada", "first"), ("Ben", "second")):
        visitor = project.visitor(name)
        while address := visitor.next():
            letter = letter_of(visitor.get(address).text, wanted)
            visitor.save(address, {**BETTER_A, "preference": letter, f"error_{letter}": "1"})
    judge = project.visitor("Judge")
    while address := judge.next():
        page = judge.get(address).text
        cards = re.findall(r"<article>(.*?)</article>", page, re.S)
        what = r"Answer ([AB]) is better|([AB]) states something wrong"
        said = [re.findall(what, card) for card in cards]
        letters = [letter_of(page, wanted).upper() for wanted in ("first", "second")]
        assert said == [[(letter, ""), ("", letter)] for letter in letters]
        judge.save(address)


def letter_of(page: str, wanted: str) -> str:
    (a,) = re.findall(r'data-side="a">(\w+)', page)
    return "a" if a == wanted else "b"


def test_of_two_adjudicators_the_second_becomes_one_more_opinion(make_project):
    people = {"Ada": "annotator", "Ben": "annotator", "J1": "adjudicator", "J2": "adjudicator"}
    project = make_project([pair(0)], double_share=1.0, people=people)
    project.visitor("Ada").judge_all(BETTER_A)
    project.visitor("Ben").judge_all({"preference": "tie"})
    first, second = project.visitor("J1"), project.visitor("J2")
    address = first.next()
    project.clock.now += 31 * 60
    assert second.next() == address
    first.save(address, {"preference": "tie"})
    second.save(address, TYPED)
    assert "one more opinion" in second.get("/").text
    flags = [row[0] for row in project.rows("SELECT adjudicates FROM judgement ORDER BY id")]
    assert flags == [0, 0, 1, 0]


def test_colleagues_agreement_and_gold_items_are_for_adjudicators(make_project):
    project = make_project([pair(n, gold="first") for n in range(3)], double_share=1.0)
    for name in ("Ada", "Ben"):
        project.visitor(name).judge_all(BETTER_A)
    own = project.visitor("Ada").get("/progress").text
    assert "kappa" not in own and "Gold" not in own and "<bdi>Ben</bdi>" not in own
    whole = project.visitor("Judge").get("/progress").text
    for words in ("Krippendorff", "Ada", "Ben", "Gold items right", "of 3", "left was preferred"):
        assert words in whole
    assert project.visitor("Ada").get("/adjudication").status_code == 403


def test_log_in_is_refused_after_several_failures_and_opens_again(make_project):
    project = make_project()
    visitor = project.visitor("Ada")
    visitor.post("/logout", {})
    visitor.get("/login")
    guess = {"name": "Ada", "password": "wrong guess!"}
    codes = [visitor.post("/login", guess).status_code for _ in range(6)]
    assert codes == [401] * 5 + [429]
    answer = visitor.post("/login", {"name": "Ada", "password": PASSWORD})
    assert answer.status_code == 429 and int(answer.headers["Retry-After"]) > 0
    project.clock.now += 16 * 60
    assert project.visitor("Ada").get("/").status_code == 200


def test_one_address_cannot_guess_at_many_names(make_project):
    client = make_project().app.test_client()
    there = {"REMOTE_ADDR": "10.1.2.3"}
    page = client.get("/login", environ_base=there).text
    fields = {"csrf_token": re.search(r'name="csrf_token" value="([^"]+)"', page)[1]}

    def guess(number):
        fields.update(name=f"somebody {number}", password="wrong guess!")
        return client.post("/login", data=fields, environ_base=there).status_code

    connection = open_database(client.application.config["DATABASE"])
    connection.executemany(
        "INSERT INTO login_failure VALUES (?, '10.1.2.3', 1800000000.0)",
        [(f"somebody {number}",) for number in range(29)],
    )
    connection.close()
    assert [guess(number) for number in (30, 31)] == [401, 429]


def test_a_new_password_ends_other_sessions(make_project):
    project = make_project()
    here, there = project.visitor("Ada"), project.visitor("Ada")
    new = "an even better one"
    assert here.post("/password", {"old": "wrong", "new": new, "again": new}).status_code == 422
    assert here.post("/password", {"old": PASSWORD, "new": new, "again": new}).status_code == 302
    assert here.get("/").status_code == 200 and there.get("/").headers["Location"] == "/login"


@pytest.mark.parametrize(
    "address", ["/", "/next", "/item/1", "/mine", "/progress", "/adjudication"]
)
def test_nothing_is_shown_without_logging_in(make_project, address):
    answer = make_project().app.test_client().get(address)
    assert answer.status_code == 302 and answer.headers["Location"] == "/login"


@pytest.mark.parametrize("address", ["/item/1", "/item/1/draft", "/logout", "/password", "/login"])
def test_a_form_of_another_site_does_nothing(make_project, address):
    project = make_project()
    visitor = project.visitor("Ada")
    visitor.next()
    for fields in (TYPED, {**TYPED, "csrf_token": "forged"}):
        assert visitor.client.post(address, data=fields).status_code == 400
    assert project.row("SELECT count(*) FROM judgement")[0] == 0
    assert project.row("SELECT count(*) FROM assignment WHERE draft IS NOT NULL")[0] == 0


def test_every_answer_forbids_what_the_pages_do_not_need(make_project):
    visitor = make_project().visitor("Ada")
    for address in ("/", "/nowhere", "/static/item.js"):
        headers = visitor.get(address).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert visitor.get("/").headers["Cache-Control"] == "no-store"


def test_cookies_are_out_of_reach_for_scripts_and_other_sites(make_project):
    client = make_project().app.test_client()
    cookie = client.get("/login").headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Secure" not in cookie


def test_other_names_of_this_machine_are_not_answered(make_project):
    client = make_project().app.test_client()
    assert client.get("/login", headers={"Host": "evil.example:8080"}).status_code == 400
    for name in ("127.0.0.1:8080", "localhost", "[::1]:8080"):
        assert client.get("/login", headers={"Host": name}).status_code == 200


def test_what_is_too_long_is_refused_with_the_limit(make_project):
    visitor = make_project().visitor("Ada")
    address = visitor.next()
    answer = visitor.save(address, {**BETTER_A, "correction": "x" * 200_001})
    assert answer.status_code == 422 and "200,000 characters" in answer.text
    assert visitor.save(address, {**BETTER_A, "correction": "x" * 5_000_000}).status_code == 413


def test_a_draft_is_plain_json_in_the_database(make_project):
    project = make_project()
    visitor = project.visitor("Ada")
    address = visitor.next()
    visitor.save(address, {"rationale": "so far", "action": "later"})
    (draft,) = project.row("SELECT draft FROM assignment WHERE draft IS NOT NULL")
    assert json.loads(draft)["rationale"] == "so far"
    assert visitor.next() != address and "put off" in visitor.get("/mine").text
