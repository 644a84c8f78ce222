import json
from pathlib import Path

import pytest
from datatrove.executor.local import LocalPipelineExecutor

from megatron_biollm.data.encode import EncodeOptions
from megatron_biollm.data.encode_step import EncodeStep
from megatron_biollm.data.indexed import merge
from megatron_biollm.data.preprocess import preprocess
from megatron_biollm.tokenizer.tokenizer import build_tokenizer


@pytest.fixture
def inputs(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(5):
        lines = [json.dumps({"text": f"File {number}, case {n}."}) for n in range(20)]
        (tmp_path / "in" / f"{number}.jsonl").write_text("\n".join(lines))
    return tmp_path / "in"


def run(step, tmp_path, tasks):
    LocalPipelineExecutor([step], tasks=tasks, workers=1, logging_dir=str(tmp_path / "logs")).run()


def test_tasks_encode_their_files_and_together_make_the_whole_corpus(
    tmp_path, inputs, sentencepiece_model
):
    options = EncodeOptions(str(inputs / "*.jsonl"), str(tmp_path / "out/c"), append_eod=True)
    step = EncodeStep(options, sentencepiece_model)
    run(step, tmp_path, 7)
    prefixes = [f"{step.prefix(rank)}_text_document" for rank in range(7)]
    assert [Path(f"{prefix}.idx").is_file() for prefix in prefixes] == [True] * 5 + [False] * 2
    merge(prefixes[:5], str(tmp_path / "merged"))
    whole = EncodeOptions(options.input, str(tmp_path / "whole"), append_eod=True)
    preprocess(whole, build_tokenizer(sentencepiece_model))
    for end in ("bin", "idx"):
        merged = (tmp_path / f"merged.{end}").read_bytes()
        assert merged == (tmp_path / f"whole_text_document.{end}").read_bytes()


def test_a_failed_task_is_not_completed_and_a_rerun_makes_it_good(
    tmp_path, inputs, sentencepiece_model
):
    options = EncodeOptions(str(inputs / "*.jsonl"), str(tmp_path / "out/c"))
    content = (inputs / "1.jsonl").read_text()
    (inputs / "1.jsonl").write_text("{")
    with pytest.raises(Exception, match="1.jsonl, line 1: not JSON"):
        run(EncodeStep(options, sentencepiece_model), tmp_path, 5)
    (inputs / "1.jsonl").write_text(content)
    run(EncodeStep(options, sentencepiece_model), tmp_path, 5)
    assert len(list((tmp_path / "out").glob("*.idx"))) == 5
    assert not list((tmp_path / "out").glob("*.shards"))
