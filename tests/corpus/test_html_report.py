import json
import re
from html.parser import HTMLParser

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.config import SourceConfig
from megatron_biollm.corpus.html_report import count_tokens, render, write_html, write_report
from tests.corpus.made_report import HOSTILE, MEASURED, made_manifest, made_report

VOID = {"meta", "br", "rect", "line", "circle"}


class Page(HTMLParser):
    """Checks that elements are closed in order; collects tags, attributes and text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(page)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page():
    return render(made_report(), made_manifest(), measured=MEASURED)


def test_every_element_is_closed_and_every_id_is_there_once(page):
    ids = [value for name, value in Page(page).attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {v[1:] for n, v in Page(page).attributes if n == "href"} <= set(ids)


def test_text_of_files_and_documents_never_becomes_an_element(page):
    tags = set(Page(page).tags)
    assert not tags & {"script", "img", "iframe", "link", "object"}
    assert "<script>" in Page(page).text and "evil.example" in Page(page).text
    assert "\x00" not in page and "\u202e" not in page


def test_every_place_that_shows_foreign_text_escapes_it():
    plain, hostile = (Page(render(made_report(t), made_manifest())) for t in ("hostile", HOSTILE))
    assert plain.tags == hostile.tags
    assert [name for name, _ in plain.attributes] == [name for name, _ in hostile.attributes]


def test_nothing_outside_the_page_is_referred_to(page):
    links = [v for n, v in Page(page).attributes if n in {"href", "src", "srcset", "data"}]
    assert all(link.startswith("#") for link in links)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in page


def test_all_numbers_of_the_manifest_are_on_the_page(page):
    manifest, text = made_manifest(), Page(page).text
    for entry in [*manifest["sources"].values(), *manifest["shards"]]:
        for name, value in entry.items():
            shown = f"{value:,}" if isinstance(value, int) else value
            assert re.search(rf"(?<![\d,]){re.escape(shown)}(?![\d,])", text), (name, value)


def test_the_funnel_begins_with_all_records_and_ends_with_the_documents(page):
    text = Page(page).text
    assert "pubmed: 117 of 140 records kept, 83.57%" in text
    assert "text: 6 of 7 records kept" in text
    assert "no text 11" in text and "broken file 9" in text and "not english 3" in text


def test_steps_that_did_nothing_to_a_source_take_no_line_of_its_funnel(page):
    text = Page(page).text
    assert "Without effect on pubmed: deidentify." in text
    assert "identity 117 83.57%" in text


def test_the_word_de_identified_stands_beside_its_measured_recall(page):
    text = Page(page).text
    assert "De-identified with a measured recall of 95.1% and a precision of 97.8%" in text
    assert "12.9% of those texts kept an identifier" in text
    assert "name 1,234 95.4% 97.7% 416" in text


def test_notes_without_measured_or_without_any_de_identification_raise_an_alarm():
    report = made_report()
    assert "recall of the rules was not measured" in render(report, made_manifest())
    report["flows"] = [flow for flow in report["flows"] if flow["name"] != "deidentify"]
    page = render(report, made_manifest(), measured=MEASURED)
    assert "did not pass the de-identification" in page and "95.1%" not in page


def test_a_corpus_without_notes_says_nothing_of_de_identification():
    report, manifest = made_report(), made_manifest()
    for flow in report["flows"]:
        del flow["came"]["clinical_notes"], flow["left"]["clinical_notes"]
        flow["tally"] = {}
    del manifest["sources"]["clinical_notes"], report["profiles"]["clinical_notes"]
    page = render(report, manifest, measured=MEASURED)
    assert "e-identif" not in Page(page).text


def test_unique_tokens_and_repeated_ones_are_told_apart():
    tokens = {"pubmed": 1_000_000, "text": 500_000}
    sources = {"pubmed": SourceConfig(epochs=2.0)}
    page = render(made_report(), made_manifest(), tokens=tokens, sources=sources, train_tokens=1e8)
    text = Page(page).text
    assert "would see 1.5 M tokens for the first time (1.5%) and 98.5 M again" in text
    assert "of the order of 0.1 to 0.3 T tokens" in text
    assert "pubmed 1,000,000 80.0% 2 M 2.00 1 M 80 M 80.0 79 M" in text
    assert "≈" not in text


def test_tokens_are_said_to_be_estimated_until_the_corpus_is_encoded(page):
    assert "≈ 40,000" in Page(page).text and "estimated, not encoded yet" in Page(page).text


def test_a_corpus_of_which_nothing_was_kept_has_a_page():
    empty = {"files": [], "flows": [], "profiles": {}, "clusters": {}}
    text = Page(render(empty, {"sources": {}, "files": {}, "dropped": {}, "shards": []})).text
    assert "There is no token to budget" in text and "Nothing was dropped" in text


def test_the_page_appears_in_one_step(tmp_path):
    write_html(made_report(), made_manifest(), tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_tokens_are_counted_from_the_sidecars_of_encoded_shards(tmp_path):
    shards = [
        {"path": f"documents/{name}.jsonl.zst", "source": name.split("/")[0], "documents": 3}
        for name in ("pubmed/00000", "pubmed/00001", "pmc/00000")
    ]
    for shard, tokens in zip(shards, (5, 7, 11), strict=True):
        name = shard["path"][len("documents/") : -len(".jsonl.zst")]
        sidecar = tmp_path / "encoded" / f"{name}_text_document.manifest.json"
        sidecar.parent.mkdir(parents=True, exist_ok=True)
        made = {"tokens": tokens, "documents": 3, "tokenizer": {"name": "bio"}}
        sidecar.write_text(json.dumps(made))
    assert count_tokens(tmp_path, shards) == ({"pubmed": 12, "pmc": 11}, {"bio"})
    for other in ({"documents": 4}, {"path": "documents/pmc/00001.jsonl.zst"}):
        assert count_tokens(tmp_path, [*shards[:2], shards[2] | other]) == ({}, set())


def test_a_corpus_that_is_not_complete_has_no_page(tmp_path):
    with pytest.raises(UserError, match=r"report.json is missing.*tools/build_corpus.py"):
        write_report(tmp_path)
