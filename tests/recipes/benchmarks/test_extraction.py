import pytest

from megatron_biollm.config import UserError
from megatron_biollm.recipes.benchmarks.extraction import benchmark_extraction, table
from tests.evaluation.shared_benchmarks import DATA, needs_data


@needs_data
def test_what_gold_lines_score_is_measured_for_every_split_that_is_there(tmp_path):
    for name in ("ncbi_disease", "kd_dti"):
        (tmp_path / name).symlink_to(DATA / name)
    report = benchmark_extraction(tmp_path)
    rows = {(one["benchmark"], one["split"]): one for one in report["rows"]}
    assert set(rows) == {
        ("ncbi_disease", "dev"), ("ncbi_disease", "train"), ("kd_dti", "test"), ("kd_dti", "dev")
    }  # fmt: skip
    assert all(one["gold_as_lines"] > 0.997 for one in rows.values())
    assert "| ncbi_disease | dev | mentions=bio | 923 | 787 | f1 | 0.9994 |" in table(report)
    assert report["scorers"] == []


def test_a_folder_without_benchmarks_is_refused(tmp_path):
    with pytest.raises(UserError, match="no benchmark of entities or relations is below"):
        benchmark_extraction(tmp_path)
