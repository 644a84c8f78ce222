import csv
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_biollm.config import load_config
from megatron_biollm.corpus.read import read_corpus
from megatron_biollm.corpus.report import CorpusReport
from megatron_biollm.corpus.shards import read_shard
from megatron_biollm.recipes.corpus import CorpusConfig, build_corpus

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
SCRIPT = QUICKSTART / "make_corpus.py"
ABSTRACTS = 200


@pytest.fixture(scope="module")
def modules():
    """The example's modules, found as its scripts find them: beside themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(QUICKSTART))
        names = ("invented_studies", "source_formats", "make_corpus", "sizes")
        yield {name: importlib.import_module(name) for name in names}


@pytest.fixture(scope="module")
def studies(modules):
    make_study = modules["invented_studies"].make_study
    return [make_study(number) for number in range(1, 401)]


@pytest.fixture(scope="module")
def sources(modules, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "sources"
    modules["make_corpus"].make_corpus(folder, ABSTRACTS, seed=1234)
    return folder


@pytest.fixture(scope="module")
def curated(sources):
    """The manifest, and the kept documents by source."""
    overrides = [
        f"paths=[{sources}]",
        f"output_dir={sources.parent / 'corpus'}",
        f"decontaminate.benchmarks=[{QUICKSTART / 'benchmark.jsonl'}]",
        "executor.workers=2",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIOLLM_DEID_SECRET", "0123456789abcdef0123456789abcdef")
        manifest = build_corpus(load_config(CorpusConfig, QUICKSTART / "corpus.yaml", overrides))
    documents = {source: {} for source in manifest["sources"]}
    for shard in manifest["shards"]:
        for document in read_shard(sources.parent / "corpus" / shard["path"]):
            documents[shard["source"]][document.id] = document
    return manifest, documents


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )


def abstract(study):
    return " ".join(text for _, text in study.abstract)


def test_the_same_seed_gives_the_same_studies_and_another_seed_others(modules, studies):
    make_study = modules["invented_studies"].make_study
    assert [make_study(number) for number in range(1, 401)] == studies
    assert [make_study(number, seed=1) for number in range(1, 401)] != studies


def test_no_placeholder_is_left_in_any_source(sources):
    texts = [d.text for d in read_corpus([sources], CorpusReport())]
    assert len(texts) > ABSTRACTS
    assert not [text for text in texts if re.search(r"\{\w*\}?|\w\}", text)]


def test_hardly_any_abstract_appears_twice(studies):
    assert len({abstract(study) for study in studies}) > 0.99 * len(studies)


def test_every_interval_contains_its_estimate(studies):
    pattern = re.compile(r"(?:difference|hazard ratio) ([\d.]+)[^;]*; 95% CI ([\d.]+) to ([\d.]+)")
    found = [tuple(map(float, m)) for s in studies for m in pattern.findall(abstract(s))]
    assert len(found) > 200
    assert all(low <= estimate <= high for estimate, low, high in found)


def test_a_drug_always_treats_the_same_disease(studies):
    seen = {}
    for study in studies:
        if match := re.search(r"Efficacy and safety of (\w+) in (.+?): ", study.title):
            seen.setdefault(match[1], set()).add(match[2])
    assert len(seen) > 10
    assert all(len(diseases) == 1 for diseases in seen.values())


def test_every_source_is_known_by_its_content_and_read_without_a_fault(sources):
    report = CorpusReport()
    documents = list(read_corpus([sources], report))
    counts = {source: sum(d.source == source for d in documents) for source in
              ("pubmed", "pmc", "clinical_trials", "clinical_notes", "patents")}  # fmt: skip
    assert counts == {"pubmed": 205, "pmc": 8, "clinical_trials": 20, "clinical_notes": 20,
                      "patents": 5}  # fmt: skip
    assert len(documents) == sum(counts.values())
    assert not report.fault_count and not report.passed_over


def test_numbers_cannot_be_taken_for_those_of_real_records(sources):
    for document in read_corpus([sources], CorpusReport()):
        if document.source != "clinical_notes":
            assert re.fullmatch(r"(PMC|NCT|US)?99\d{6,7}(B2)?", document.id)


def test_curation_finds_all_that_is_planted(curated):
    manifest, documents = curated
    dropped = manifest["dropped"]
    assert dropped["patent_selection: not_biomedical"] == 1
    assert dropped["quality: retracted"] == 1
    assert dropped["identity: withdrawn"] == 1
    assert dropped["identity: exact_duplicate"] == 1
    assert dropped["identity: superseded_version"] == 3
    assert dropped["identity: in_full_text"] == 7
    assert dropped["near_duplicate: near_duplicate"] == 1
    assert dropped["contained: contained"] == 1
    assert dropped["decontaminate: benchmark"] == 1
    assert len(documents["pubmed"]) == 205 - (1 + 1 + 1 + 3 + 7 + 1 + 1 + 1)


def test_no_identifier_of_an_invented_patient_is_left(modules, studies, curated):
    _, documents = curated
    notes = "\n".join(document.text for document in documents["clinical_notes"].values())
    assert len(documents["clinical_notes"]) == 20
    for study in studies[:20]:
        patient = modules["invented_studies"].make_patient(study, study.number)
        for identifier in ("last_name", "doctor", "street", "phone", "mrn", "visit"):
            assert patient[identifier] not in notes, identifier


def test_the_script_writes_the_same_files_and_nothing_else(tmp_path, sources):
    done = run(tmp_path / "new", "--abstracts", ABSTRACTS)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    files = {file.relative_to(tmp_path / "new") for file in (tmp_path / "new").rglob("*.*")}
    assert files == {file.relative_to(sources) for file in sources.rglob("*.*")}
    for name in ("clinicaltrials/studies.json", "notes/notes.csv", "patents/ipg260106.xml"):
        assert (tmp_path / "new" / name).read_bytes() == (sources / name).read_bytes()


def test_too_few_abstracts_are_refused(tmp_path):
    done = run(tmp_path / "new", "--abstracts", 5)
    assert done.returncode == 2 and "--abstracts is 5" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_notes_table_has_the_columns_of_the_published_sets(sources):
    with (sources / "notes" / "notes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["ID", "section_header", "section_text", "dialogue"]


@pytest.mark.parametrize("characters", [1, 60_000, 300_000, 2_000_000, 10_000_000])
def test_more_text_gets_a_larger_vocabulary_that_leaves_no_row_over(modules, characters):
    choose = modules["sizes"].choose
    ids, pieces, _ = choose(characters)
    assert ids >= 512 and ids <= choose(10 * characters)[0]
    assert characters < 100_000 or (ids + pieces) % 1024 == 0


def test_a_corpus_without_text_ends_the_quickstart_with_one_line(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"sources": {}}))
    done = subprocess.run(
        [sys.executable, QUICKSTART / "sizes.py", tmp_path / "manifest.json"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        "error: curation has left no text; its report says what was dropped and why\n"
    )
