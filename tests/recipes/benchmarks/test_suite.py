import importlib
import json
from dataclasses import replace

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.recipes.benchmarks import suite as benchmark_suite
from megatron_biollm.recipes.benchmarks.suite import OUTPUT, Row, SuiteOptions, command, run_suite
from megatron_biollm.recipes.benchmarks.suites import SUITES
from tests.distributed import ROOT

# Stands for tools/benchmark.py: counts its calls, fails where asked to, reports one figure.
PROGRAM = """
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
with open(folder / "calls", "a") as file:
    print(*sys.argv[1:], file=file)
if (folder / "fails").exists() and "--processes" in sys.argv:
    print("working on it", file=sys.stderr)
    sys.exit("error: nothing to be had; try later")
figure = {"name": "speed", "value": 2.0, "bar": 1.0, "at_least": True, "met": True}
print(json.dumps({"bars": [figure]}))
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def options(tmp_path, **changes):
    return SuiteOptions(**{"suite": "cpu", "output": tmp_path / "out", "device": "cpu"} | changes)


def calls(program):
    path = program.with_name("calls")
    return path.read_text().splitlines() if path.exists() else []


def test_each_row_becomes_a_file_and_a_place_on_the_page(program, tmp_path):
    page, rows = run_suite(options(tmp_path), program)
    assert [row.reason for row in rows] == [""] * len(SUITES["cpu"])
    for entry in SUITES["cpu"]:
        report = json.loads((page.parent / f"{entry.name}.json").read_text())
        assert report["suite"]["command"] == command(entry, device_kind="cpu")
        assert entry.name in page.read_text()
    assert f"| {SUITES['cpu'][0].name} | speed | 2 | ≥ 1 | yes |" in page.read_text()


def test_rows_that_are_there_are_kept_until_they_are_wanted_again(program, tmp_path):
    run_suite(options(tmp_path), program)
    before = len(calls(program))
    run_suite(options(tmp_path), program)
    assert len(calls(program)) == before
    first = SUITES["cpu"][0].name
    run_suite(options(tmp_path, again=True, only=(first,)), program)
    assert len(calls(program)) == before + 1


def test_a_row_of_other_hardware_or_without_its_first_figure_is_measured_anew(program, tmp_path):
    page, _ = run_suite(options(tmp_path), program)
    before = len(calls(program))
    one, two = (page.parent / f"{entry.name}.json" for entry in SUITES["cpu"][:2])
    report = json.loads(one.read_text())
    report["suite"]["hardware"] = "Another machine"
    one.write_text(json.dumps(report))
    report = json.loads(two.read_text())
    report["bars"][0]["value"] = None
    two.write_text(json.dumps(report))
    run_suite(options(tmp_path), program)
    assert len(calls(program)) == before + 2


def test_a_command_that_fails_leaves_an_empty_row_with_its_reason(program, tmp_path):
    program.with_name("fails").touch()
    page, rows = run_suite(options(tmp_path), program)
    assert {row.reason for row in rows} == {"nothing to be had; try later"}
    text = page.read_text()
    assert "0 of" in text
    assert f"`{command(SUITES['cpu'][0])}`" in text
    assert not list(page.parent.glob("*.json"))


def test_rows_that_need_a_gpu_stay_empty_without_one_and_show_their_bars(program, tmp_path):
    page, rows = run_suite(options(tmp_path, suite="gpu"), program)
    assert not calls(program)
    assert all("no GPU" in row.reason for row in rows)
    text = page.read_text()
    assert "share of the peak (MFU), nothing recomputed |  | ≥ 0.55 |  |" in text
    assert "speed beside torchtitan |  | ≥ 1 |  |" in text
    assert all(row.entry.name in text for row in rows)


def test_a_rehearsal_runs_every_command_anywhere_and_says_what_it_is(program, tmp_path):
    page, rows = run_suite(options(tmp_path, suite="gpu", tiny=True), program)
    assert [row.reason for row in rows] == [""] * len(SUITES["gpu"])
    assert all("--device cpu" in call for call in calls(program))
    assert "no figure of it counts" in page.read_text()


def test_a_rehearsal_is_never_taken_for_a_measurement(program, tmp_path):
    run_suite(options(tmp_path, tiny=True), program)
    before = len(calls(program))
    run_suite(options(tmp_path), program)
    assert len(calls(program)) == 2 * before
    with pytest.raises(UserError, match="may not write to"):
        SuiteOptions(suite="cpu", tiny=True, output=OUTPUT)


def test_a_row_that_may_not_fit_the_budget_is_left_for_later(program, tmp_path):
    _, rows = run_suite(options(tmp_path, budget_s=1.0), program)
    assert all("budget" in row.reason for row in rows)
    assert not calls(program)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"suite": "tpu"}, "choose one of gpu"), ({"only": ("gpu_x",)}, "gpu_x is unknown")],
)
def test_what_is_not_there_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        options(tmp_path, **changes)


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_the_committed_page_shows_every_row_of_its_suite(suite):
    path = ROOT / OUTPUT / f"{suite}.md"
    if not path.is_file():
        pytest.skip(f"{path.name} has not been written yet")
    text = path.read_text(encoding="utf-8")
    assert [entry.name for entry in SUITES[suite] if entry.name not in text] == []


def test_a_report_without_bars_gives_those_rows_that_have_one():
    rows = [
        {"name": "times faster", "ours": 1, "ratio": 6, "bar": 5, "met": True},
        {"name": "share of time", "ours": 0.5, "ratio": None, "bar": 0.1, "met": False},
        {"name": "b", "ratio": 3},
    ]
    found = benchmark_suite.figures({"rows": rows})
    assert [(one["name"], one["value"], one["at_least"]) for one in found] == [
        ("times faster", 6, True),
        ("share of time", 0.5, False),
    ]


def test_a_table_that_this_version_lacks_is_left_out():
    entry = replace(SUITES["cpu"][0], shows="megatron_biollm.recipes.nothing:table")
    assert benchmark_suite._shown(Row(entry, {"rows": []})) == ""


@pytest.mark.parametrize("entry", [one for suite in SUITES.values() for one in suite])
def test_every_report_has_its_table(entry):
    module, _, name = entry.shows.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
