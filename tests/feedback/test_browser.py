"""The pages in a real, headless Chromium."""

import sqlite3

import pytest

from tests.feedback.browser import Browser, needs_chromium, serving
from tests.feedback.project import pair


@pytest.fixture
def project(make_project):
    needs_chromium()
    return make_project([pair(0)], double_share=1.0)


@pytest.fixture
def open_browser():
    browsers = []

    def make(address, name, **options):
        browser = Browser(address, **options)
        browsers.append(browser)
        browser.log_in(name)
        return browser

    yield make
    for browser in browsers:
        browser.close()


def judged(project):
    return project.rows("SELECT * FROM judgement ORDER BY id")


def test_two_annotators_at_once_reload_in_mid_answer_and_nothing_leaves_the_host(
    project, open_browser
):
    with serving(project.path) as address:
        ada, ben = open_browser(address, "Ada"), open_browser(address, "Ben")
        ada.open("/next")
        ben.open("/next")
        # Ada reloads at once after typing, long before a draft is on its way.
        ada.type("[name=rationale]", "Zehnfache Dosis 十倍")
        ada.click("[name=error_b]")
        ada.driver.refresh()
        value = "return document.querySelector('[name=rationale]').value"
        assert ada.driver.execute_script(value) == "Zehnfache Dosis 十倍"
        assert ada.find("[name=error_b]").is_selected()
        ada.kept()
        # By keys alone: preference, strength, save.
        ben.click("#main")
        for key in ("2", "e"):
            ben.press(key)
        ben.press("\ue009\ue007")
        ben.wait(lambda: "Saved." in ben.text())
        ada.click("[name=preference][value=tie]")
        ada.click("button[value=save]")
        ada.wait(lambda: "Saved." in ada.text())
        asked = ada.asked_for() | ben.asked_for()
        assert len(asked) > 5 and all(url.startswith((address, "data:")) for url in asked), asked
        assert ada.complaints() == ben.complaints() == []
    rows = {row["preference"]: row for row in judged(project)}
    assert rows["b"]["strength"] == 3
    assert (rows["tie"]["rationale"], rows["tie"]["error_b"]) == ("Zehnfache Dosis 十倍", 1)
    assert rows["tie"]["active_seconds"] is not None


@pytest.mark.slow
def test_a_draft_goes_on_in_another_browser(project, open_browser):
    with serving(project.path) as address:
        first = open_browser(address, "Ada")
        first.open("/next")
        first.type("[name=rationale]", "half a thought")
        first.click("[name=preference][value=b]")
        first.kept()
        second = open_browser(address, "Ada")
        second.open("/next")
        assert "unfinished draft" in second.text()
        assert second.find("[name=rationale]").get_attribute("value") == "half a thought"
        assert second.find("[name=preference][value=b]").is_selected()


@pytest.mark.slow
def test_a_busy_database_loses_nothing(project, open_browser):
    with serving(project.path) as address:
        ada = open_browser(address, "Ada")
        ada.open("/next")
        locker = sqlite3.connect(project.path, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")
        ada.type("[name=rationale]", "typed while busy")
        ada.wait(lambda: "Draft not kept: The database is busy" in ada.text())
        ada.click("[name=preference][value=tie]")
        ada.click("button[value=save]")
        ada.wait(lambda: "Not saved: the database is busy" in ada.text())
        locker.execute("ROLLBACK")
        locker.close()
        ada.click("button.main")
        ada.wait(lambda: "Saved." in ada.text())
    assert judged(project)[0]["rationale"] == "typed while busy"


@pytest.mark.slow
def test_a_server_that_goes_away_and_comes_back_loses_nothing(project, open_browser):
    with serving(project.path) as address:
        ada = open_browser(address, "Ada")
        ada.open("/next")
    ada.type("[name=rationale]", "typed while away")
    ada.wait(lambda: "Draft not kept" in ada.text())
    with serving(project.path, port=int(address.rpartition(":")[2])):
        ada.kept()
        ada.driver.refresh()
        assert ada.find("[name=rationale]").get_attribute("value") == "typed while away"


@pytest.mark.slow
def test_it_works_without_javascript(project, open_browser):
    with serving(project.path) as address:
        ada = open_browser(address, "Ada", script=False)
        ada.open("/next")
        assert not ada.find(".needs-script").is_displayed()
        ada.type("[name=rationale]", "no script")
        ada.click("button[value=draft]")
        ada.wait(lambda: "Your draft is kept." in ada.text())
        ada.click("[name=preference][value=a]")
        ada.click("button[value=save]")
        ada.wait(lambda: "Say how much better it is." in ada.text())
        ada.click("[name=strength][value='1']")
        ada.click("button[value=save]")
        ada.wait(lambda: "Saved." in ada.text())
    row = judged(project)[0]
    assert (row["rationale"], row["preference"]) == ("no script", "a")
    assert row["active_seconds"] is None and row["wall_seconds"] > 0


@pytest.mark.slow
def test_an_answer_is_copied_corrected_and_flagged(project, open_browser):
    with serving(project.path) as address:
        ada = open_browser(address, "Ada")
        ada.open("/next")
        shown = ada.find(".pane[data-side=b]").text
        ada.click(".correction summary")
        ada.click("[data-copy=b]")
        ada.type("[name=correction]", " and so on")
        ada.click("[name=category_a] option[value=privacy]")
        assert ada.find("[name=unsafe_a]").is_selected()
        ada.click("[name=preference][value=b]")
        ada.click("[name=strength][value='2']")
        ada.click("button[value=save]")
        ada.wait(lambda: "Saved." in ada.text())
    row = judged(project)[0]
    assert (row["correction"], row["correction_base"]) == (f"{shown} and so on", "b")
    assert (row["unsafe_a"], row["category_a"]) == (1, "privacy")
