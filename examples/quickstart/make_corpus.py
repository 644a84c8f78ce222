"""Writes a folder of sample sources: all of them invented, each in its source's own format.

    pubmed/          a baseline file, an update file, and their checksums
    pmc/             articles in JATS, packed as PMC packs them
    clinicaltrials/  studies as the API gives them
    notes/           a table of clinical notes, with names, dates and numbers of invented patients
    patents/         a weekly bulk file

Among them is what curation is there for: a newer version, a withdrawn record, a retracted article,
copies and near-copies, abstracts that are also in full texts, identifiers of patients, a patent on
a garden gate, and the question of benchmark.jsonl. The same arguments give the same texts.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

from invented_studies import HERE, Study, make_study
from source_formats import jats_article, note_row, patent, pubmed_record, pubmed_set, trial

EXAMPLE = """example:
  python examples/quickstart/make_corpus.py runs/sources --abstracts 3000"""

FIRST_NUMBER = 990_000_000
# Of so many abstracts there is one article, trial, note and patent.
ARTICLE, TRIAL, NOTE, PATENT = 25, 10, 10, 50


def pubmed_baseline(studies: list[Study]) -> str:
    records = [pubmed_record(study, FIRST_NUMBER + study.number) for study in studies]
    return pubmed_set(records, withdrawn=[])


def pubmed_update(studies: list[Study]) -> str:
    """What happens to a database in time, on its last six studies."""
    revised, withdrawn, copied, edited, retracted, asked = studies[-6:]
    new = FIRST_NUMBER + len(studies) + 1
    records = [
        pubmed_record(_with_end(revised, "The last visit has been added."), _pmid(revised), 2),
        pubmed_record(copied, new),
        pubmed_record(_with_end(edited, "Our results are reported in full."), new + 1),
        pubmed_record(retracted, _pmid(retracted), 2, is_retracted=True),
        pubmed_record(_with_end(asked, benchmark_question().upper()), _pmid(asked), 2),
    ]
    return pubmed_set(records, withdrawn=[_pmid(withdrawn)])


def pmc_articles(studies: list[Study]) -> dict[str, str]:
    """Full texts by name. The first does not say which PubMed record is its abstract."""
    numbers = [f"PMC{FIRST_NUMBER + study.number}" for study in studies]
    articles = zip(numbers, studies, strict=True)
    return {
        f"{pmcid}.xml": jats_article(study, pmcid, _pmid(study) if study.number > 1 else None)
        for pmcid, study in articles
    }


def benchmark_question() -> str:
    line = (HERE / "benchmark.jsonl").read_text(encoding="utf-8").splitlines()[0]
    return json.loads(line)["question"]


def make_corpus(folder: Path, abstracts: int, seed: int) -> None:
    """Writes all files; existing ones are replaced."""
    studies = [make_study(number, seed) for number in range(1, abstracts + 1)]
    some = {step: studies[: max(1, abstracts // step)] for step in (ARTICLE, TRIAL, NOTE, PATENT)}
    _write_gzip(folder / "pubmed" / "pubmed26n0001.xml.gz", pubmed_baseline(studies))
    _write_gzip(folder / "pubmed" / "pubmed26n1001.xml.gz", pubmed_update(studies))
    _write_tar(folder / "pmc" / "oa_comm_xml.PMC990xxxxxx.tar.gz", pmc_articles(some[ARTICLE]))
    trials = [trial(study, f"NCT{99_000_000 + study.number}") for study in some[TRIAL]]
    _write(folder / "clinicaltrials" / "studies.json", json.dumps({"studies": trials}, indent=1))
    rows = [note_row(study, study.number) for study in some[NOTE]]
    _write(folder / "notes" / "notes.csv", _table(rows))
    grants = [patent(study, 99_000_000 + study.number) for study in some[PATENT]]
    gate = patent(studies[0], 99_900_000, kind="other")
    _write(folder / "patents" / "ipg260106.xml", "".join([*grants, gate]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="folder to make")
    parser.add_argument("--abstracts", type=int, default=3000, help="[default: %(default)s]")
    parser.add_argument("--seed", type=int, default=1234, help="[default: %(default)s]")
    arguments = parser.parse_args()
    if arguments.abstracts < 6:
        parser.error(f"--abstracts is {arguments.abstracts}, but the update file needs 6 or more")
    make_corpus(arguments.output, arguments.abstracts, arguments.seed)
    files = [file for file in arguments.output.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files) / 1e6
    print(f"{arguments.output}: {len(files)} files, {size:.1f} MB", file=sys.stderr)


def _pmid(study: Study) -> int:
    return FIRST_NUMBER + study.number


def _with_end(study: Study, sentence: str) -> Study:
    *parts, (label, text) = study.abstract
    return replace(study, abstract=(*parts, (label, f"{text} {sentence}")))


def _table(rows: list[dict[str, str]]) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_gzip(path: Path, text: str) -> None:
    """With the checksum beside it, as NLM writes them."""
    packed = gzip.compress(text.encode(), mtime=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed)
    digest = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    _write(path.with_name(f"{path.name}.md5"), f"MD5({path.name})= {digest}\n")


def _write_tar(path: Path, texts: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, text in texts.items():
            member = tarfile.TarInfo(f"PMC990xxxxxx/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))


if __name__ == "__main__":
    main()
