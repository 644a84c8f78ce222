import gzip

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.recipes.benchmarks.corpus import CorpusBenchmark, benchmark_corpus, table

RECORD = (
    "<PubmedArticle><MedlineCitation><PMID>{}</PMID><Article><ArticleTitle>Aspirin and the risk of "
    "stroke in {} patients</ArticleTitle></Article></MedlineCitation></PubmedArticle>"
)


def test_every_step_is_timed_on_the_file_repeated_up_to_the_size(tmp_path):
    records = "".join(RECORD.format(number, number) for number in range(200))
    path = tmp_path / "a.xml.gz"
    path.write_bytes(gzip.compress(f"<PubmedArticleSet>{records}</PubmedArticleSet>".encode()))
    report = benchmark_corpus(CorpusBenchmark(str(path), megabytes=1, repeats=1))
    sizes = {row["step"]: row["megabytes"] for row in report["rows"]}
    assert {"read", "normalise", "quality", "near-duplicate signatures"} <= set(sizes)
    assert sizes["normalise"] == pytest.approx(1, abs=0.01) and 0.9 < sizes["read"] <= 1
    assert all(row["mb_per_s"] > 0 for row in report["rows"])
    assert "bare lxml" in table(report)
    assert report["options"]["input"] == "a.xml.gz"


def test_what_cannot_be_measured_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no file"):
        CorpusBenchmark(str(tmp_path / "nowhere.xml"))
    (tmp_path / "a.bin").write_bytes(b"\0")
    with pytest.raises(UserError, match="of no format"):
        benchmark_corpus(CorpusBenchmark(str(tmp_path / "a.bin"), 1, 1))
