"""The report is one page that needs nothing, and shows every score with its doubt."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation.comparison import Comparison, compare, with_holm
from megatron_biollm.evaluation.curve import append_curve, curve_rows, read_curve
from megatron_biollm.evaluation.published import read_published
from megatron_biollm.evaluation.report import write_report
from megatron_biollm.evaluation.results import ModelResults
from megatron_biollm.evaluation.statistics import Difference
from megatron_biollm.evaluation.suite import BIOLLM15
from tests.evaluation.scored import curve, model


class Page(HTMLParser):
    """Rows of a page's tables as lists of texts, and the addresses it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.rows, self.loaded, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        values = dict(attributes)
        self.loaded += [values[name] for name in ("src", "data", "srcset") if name in values]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data + " "

    def row(self, name: str) -> list[str]:
        return next(row for row in self.rows if row and row[0].startswith(name))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("report")
    write_report(made, [model("small <b>", 40), model("large", 62)], curve())
    return made


def test_a_score_that_is_no_number_becomes_null(tmp_path):
    one = model("one", 30)
    nan = replace(one.results[0], chance=float("nan"))
    write_report(tmp_path, [replace(one, results=(nan, one.results[1]))])
    stored = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert stored["models"][0]["results"][0]["chance"] is None


@pytest.fixture(scope="module")
def page(folder) -> Page:
    return Page((folder / "report.html").read_text())


def test_the_page_needs_nothing_beside_it(folder, page):
    assert page.loaded and all(one.startswith("data:image/svg+xml;base64,") for one in page.loaded)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    style = re.search("<style>(.*?)</style>", (folder / "report.html").read_text(), re.S)[1]
    assert "url(" not in style and "@import" not in style


def test_every_score_stands_with_its_interval_beside_chance_and_published_ones(page):
    assert page.row("Guessing")[1].split() == ["25.0"]
    score, bounds = page.row("large")[1].split()
    low, high = map(float, bounds.split("–"))
    assert score == "62.0" and 50 < low < 62 < high < 72
    assert page.row("Meditron-70B [1]")[1].split() == ["59.8"]
    assert "macro" not in str(page.row("Meditron-70B [1]"))


def test_what_a_score_hides_is_shown(page):
    text = str(page.rows)
    assert "3.0 %" in text, "unreadable answers"
    assert "90 items only" in text, "a limit"
    assert "options=4" in text, "conventions"
    assert "2 of 5" in text, "contamination"
    assert "45.0 ± 7.1" in text, "prompts"
    assert page.row("step 1"), "parts"


def test_names_are_escaped(folder):
    text = (folder / "report.html").read_text()
    assert "small &lt;b&gt;" in text and "small <b>" not in text


def test_the_three_forms_tell_the_same(folder):
    stored = json.loads((folder / "report.json").read_text())
    assert [one["model"] for one in stored["models"]] == ["small <b>", "large"]
    assert stored["models"][1]["results"][0]["scores"]["accuracy"]["value"] == 0.62
    assert stored["comparisons"][0]["difference"]["value"] == pytest.approx(0.22)
    assert len(stored["curve"]) == 6
    lines = (folder / "report.md").read_text().splitlines()
    assert any(line.startswith("| large | 62.0 (") for line in lines)
    assert "1. Chen et al. 2023, MEDITRON-70B, table 4, <https://arxiv.org/abs/2311.16079>" in lines
    widths = [line.count(" |") for line in lines if line.startswith("| large |")]
    assert len(set(widths)) == 1


def test_the_pictures_lie_beside_the_page(folder):
    for name in ("scores", "comparison", "curve"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_one_model_without_a_curve_has_a_report_too(tmp_path):
    page = Page(write_report(tmp_path, [model("alone", 30)]).read_text())
    assert len(page.loaded) == 1
    assert not any("Holm" in str(row) for row in page.rows)


def test_a_report_on_nothing_or_on_two_models_of_one_name_is_refused(tmp_path):
    with pytest.raises(UserError, match="no score to report"):
        write_report(tmp_path, [ModelResults("none", ())])
    with pytest.raises(UserError, match="two models are called same"):
        write_report(tmp_path, [model("same", 30), model("same", 31)])
    assert not list(tmp_path.iterdir())


def test_models_are_compared_only_where_they_were_asked_the_same():
    first, second = model("first", 40), model("second", 60)
    assert compare([first, second])[0].mcnemar.only_second == 20
    other = replace(second, results=(replace(second.results[0], conventions={"options": "5"}),))
    assert compare([first, other])[0].obstacle == "conventions differ: options"
    other = replace(second, results=(replace(second.results[0], split="dev"),))
    assert compare([first, other])[0].obstacle == "splits differ: test, dev"
    assert compare([first, replace(second, tallies={})])[0].obstacle == "no counts were kept"


def test_holms_correction_is_the_textbooks():
    made = [
        Comparison("", "", "a", "b", "f1", Difference(0.1, 0, 1, p, 10))
        for p in (0.01, 0.04, 0.03, 0.005)
    ]
    assert [one.p_holm for one in with_holm(made)] == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_curve_grows_by_checkpoints_and_a_second_scoring_replaces_the_first(tmp_path):
    path = tmp_path / "run" / "curve.jsonl"
    for step, right in ((20, 50), (10, 30), (20, 60)):
        append_curve(path, curve_rows(step, 1000 * step, model("one", right).results))
    rows = [row for row in read_curve(path) if row["benchmark"] == "medqa"]
    assert [(row["step"], row["score"], row["chance"]) for row in rows] == [
        (10, 0.3, 0.25),
        (20, 0.6, 0.25),
    ]


def test_a_curve_with_a_gap_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_curve(tmp_path / "curve.jsonl")
    append_curve(tmp_path / "curve.jsonl", [{"step": 3, "benchmark": "medqa", "score": 0.3}])
    with pytest.raises(UserError, match="step 3 has no consumed_tokens, low, high"):
        read_curve(tmp_path / "curve.jsonl")


def test_published_scores_name_known_benchmarks_and_their_sources():
    found = read_published()
    assert {one.benchmark for one in found} <= set(BIOLLM15)
    assert all(one.url.startswith("https://") and one.source for one in found)
    assert all(0 < one.value < 1 for one in found)
    gpt4 = {o.benchmark: o.value for o in found if o.source.startswith("Xiong")}
    assert gpt4["medqa"] == pytest.approx(0.8397) and gpt4["bioasq"] == pytest.approx(0.8430)
