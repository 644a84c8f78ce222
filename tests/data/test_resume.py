"""A run that was cut off: what it leaves, and what the next one makes of it."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.data.encode import EncodeOptions
from megatron_biollm.data.preprocess import preprocess
from megatron_biollm.data.shards import WorkFolder
from megatron_biollm.tokenizer.tokenizer import build_tokenizer

TOOL = Path(__file__).parents[2] / "tools" / "preprocess_data.py"
FILES = 4


@pytest.fixture
def inputs(tmp_path):
    """Files of some lines each; every file is a shard."""
    (tmp_path / "in").mkdir()
    for number in range(FILES):
        lines = [json.dumps({"text": f"File {number}, case {n}."}) for n in range(300)]
        (tmp_path / "in" / f"{number}.jsonl").write_text("\n".join(lines))
    return str(tmp_path / "in" / "*.jsonl")


def encode(inputs, output, config, **options):
    seen = []
    options = EncodeOptions(inputs, str(output), append_eod=True, **options)
    preprocess(options, build_tokenizer(config), on_shard=seen.append)
    return [Path(f"{output}_text_document.{end}").read_bytes() for end in ("bin", "idx")]


def break_last_file(inputs, broken=True):
    path = Path(inputs).parent / f"{FILES - 1}.jsonl"
    path.write_text("{" if broken else json.dumps({"text": "mended"}))


def cut_off(inputs, output, config, **options):
    """A run that finishes all shards but the last; returns their seals and times."""
    break_last_file(inputs)
    with pytest.raises(UserError, match="not JSON"):
        encode(inputs, output, config, **options)
    break_last_file(inputs, broken=False)
    return seals(output)


def seals(output):
    return {path: path.stat().st_mtime_ns for path in Path(f"{output}.shards").glob("*.json")}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("partitions", [1, 3])
def test_a_rerun_takes_what_is_finished_and_gives_the_same_bytes(
    tmp_path, inputs, sentencepiece_model, workers, partitions
):
    options = {"workers": workers, "partitions": partitions}
    finished = cut_off(inputs, tmp_path / "out", sentencepiece_model, **options)
    assert len(finished) == FILES - 1
    kept = {path.name.split(".")[0] for path in (tmp_path / "out.shards").iterdir()}
    assert kept == {path.stem for path in finished}
    break_last_file(inputs)  # what is finished is not even opened again
    with pytest.raises(UserError, match="not JSON"):
        encode(inputs, tmp_path / "out", sentencepiece_model, **options)
    assert seals(tmp_path / "out") == finished
    break_last_file(inputs, broken=False)
    again = encode(inputs, tmp_path / "out", sentencepiece_model, **options)
    assert again == encode(inputs, tmp_path / "clean", sentencepiece_model, **options)
    assert not (tmp_path / "out.shards").exists()


@pytest.mark.parametrize("change", ["tokenizer", "input", "options", "program"])
def test_what_was_made_otherwise_is_not_taken(
    tmp_path, inputs, sentencepiece_model, hugging_face_model, change, monkeypatch
):
    finished = cut_off(inputs, tmp_path / "out", sentencepiece_model)
    config, options = sentencepiece_model, {}
    if change == "tokenizer":
        config = hugging_face_model
    if change == "input":
        path = Path(inputs).parent / "0.jsonl"
        path.write_bytes(path.read_bytes().replace(b"case", b"CASE"))
    if change == "options":
        options = {"json_keys": ["text"], "dtype": "int32"}
    if change == "program":
        monkeypatch.setattr("megatron_biollm.data.shards._VERSION", -1)
    asked = []
    monkeypatch.setattr(WorkFolder, "finished", _told(WorkFolder.finished, asked))
    again = encode(inputs, tmp_path / "out", config, **options)
    assert len(finished) == FILES - 1
    assert sum(map(bool, asked)) == (FILES - 2 if change == "input" else 0)
    assert again == encode(inputs, tmp_path / "clean", config, **options)


def _told(method, asked):
    def finished(self, name):
        asked.append(method(self, name))
        return asked[-1]

    return finished


def test_files_without_a_seal_are_not_taken(tmp_path, inputs, sentencepiece_model):
    finished = cut_off(inputs, tmp_path / "out", sentencepiece_model)
    next(iter(finished)).unlink()
    again = encode(inputs, tmp_path / "out", sentencepiece_model)
    assert again == encode(inputs, tmp_path / "clean", sentencepiece_model)


@pytest.mark.parametrize("damage", ["shorter", "changed"])
def test_a_finished_shard_that_was_damaged_does_no_harm(
    tmp_path, inputs, sentencepiece_model, damage
):
    cut_off(inputs, tmp_path / "out", sentencepiece_model)
    path = sorted((tmp_path / "out.shards").glob("*.0.0.ids"))[0]
    content = bytearray(path.read_bytes())
    if damage == "shorter":
        path.write_bytes(content[:-2])
        again = encode(inputs, tmp_path / "out", sentencepiece_model)
        assert again == encode(inputs, tmp_path / "clean", sentencepiece_model)
        return
    content[7] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="another checksum"):
        encode(inputs, tmp_path / "out", sentencepiece_model)
    assert not (tmp_path / "out_text_document.idx").exists()


def test_two_processes_do_not_write_one_output(tmp_path, inputs, sentencepiece_model):
    import fcntl

    (tmp_path / "out.shards").mkdir()
    descriptor = os.open(tmp_path / "out.shards", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is writing"):
            encode(inputs, tmp_path / "out", sentencepiece_model)
    finally:
        os.close(descriptor)


def command(tmp_path, config):
    return [
        *(sys.executable, str(TOOL), "--input", str(tmp_path / "big.jsonl")),
        *("--output-prefix", str(tmp_path / "out"), "--append-eod", "--workers", "2"),
        *("--tokenizer-type", config.tokenizer_type, "--tokenizer-model", config.tokenizer_model),
    ]


@pytest.mark.parametrize("ended", ["by its scheduler", "with -9", "by the death of a worker"])
def test_a_job_that_is_ended_can_be_run_again(tmp_path, sentencepiece_model, ended):
    line = json.dumps({"text": "A case of something or other, and of nothing else. " * 4})
    (tmp_path / "big.jsonl").write_text(f"{line}\n" * 100_000)
    run = command(tmp_path, sentencepiece_model)
    with subprocess.Popen(run, stderr=subprocess.PIPE, text=True) as job:
        while not job.stderr.readline().startswith("Processed"):
            assert job.poll() is None
        if ended == "by its scheduler":
            job.terminate()
        elif ended == "with -9":
            job.kill()
        else:
            tasks = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
            os.kill(int(tasks[-1]), signal.SIGKILL)
        said = job.communicate(timeout=30)[1]
    expected = {"by its scheduler": 130, "with -9": -9}.get(ended, 2)
    assert job.returncode == expected
    if expected == 2:
        assert "exit status -9" in said and "Traceback" not in said
    assert {path.name for path in tmp_path.iterdir()} == {"big.jsonl", "out.shards"}
    finished = seals(tmp_path / "out")
    assert finished
    subprocess.run(run, check=True, capture_output=True)
    clean = [part.replace(str(tmp_path / "out"), str(tmp_path / "clean")) for part in run]
    subprocess.run(clean, check=True, capture_output=True)
    for end in ("bin", "idx"):
        assert (tmp_path / f"out_text_document.{end}").read_bytes() == (
            tmp_path / f"clean_text_document.{end}"
        ).read_bytes()


def test_a_full_disk_costs_the_shard_alone(tmp_path, sentencepiece_model):
    small, large = json.dumps({"text": "a"}), json.dumps({"text": "abcdefgh " * 9999})
    (tmp_path / "big.jsonl").write_text(f"{small}\n" * 300_000 + large)
    limit = 1_800_000
    done = subprocess.run(
        command(tmp_path, sentencepiece_model),
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2 and "finished shards are kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out_text*"))
