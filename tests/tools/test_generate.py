import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from tests.generation import small_model
from tests.generation.saved_run import save_run
from tests.generation.small_model import layout

TOOL = Path(__file__).parents[2] / "tools" / "generate.py"
TP2 = "parallel.tensor_model_parallel_size=2"


def run(*arguments, launcher=()):
    command = [sys.executable, *launcher, TOOL, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def main(arguments, text):
    """The tool within a worker, which has imported what the tool needs; its standard output."""
    stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    argv = ["generate.py", *arguments]
    with (
        mock.patch.multiple(sys, argv=argv, stdin=stdin),
        contextlib.redirect_stdout(io.StringIO()) as output,
    ):
        runpy.run_path(str(TOOL))["main"]()
    return output.getvalue()


@pytest.fixture(scope="module")
def run_dir(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    tokenizer = small_model.train_small_tokenizer(folder / "base")
    world.run(1, save_run, folder, tokenizer, layout(), [3])
    return folder


def test_one_process_and_two_print_the_same_text(world, run_dir):
    common = [f"--checkpoint={run_dir}", "--max-new-tokens=12", "--seed=3", "--device=cpu"]
    alone = [*common, "--prompt-file=-", "--json"]
    (output,) = world.run(1, main, alone, "Patients with\n", joined=False)
    (row,) = json.loads(output)
    assert row["prompt"] == "Patients with" and len(row["tokens"]) == 12
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    shared = run(*common, "--prompt", "Patients with", TP2, launcher=launcher)
    assert shared.returncode == 0, shared.stderr
    assert shared.stdout == row["text"] + "\n"
    assert "step_00000003" in shared.stderr and shared.stderr.count("tokens/s") == 1


def test_several_texts_are_told_apart(world, run_dir):
    arguments = [f"--checkpoint={run_dir}", "--prompt=a", "--num-samples=2", "--max-new-tokens=3"]
    first, second = world.run(2, main, [*arguments, TP2], "", joined=False)
    assert first.startswith("--- 1 of 2\n") and "\n--- 2 of 2\n" in first
    assert second == ""


def test_conversations_are_answered(world, run_dir):
    arguments = [f"--checkpoint={run_dir}", "--chat", "--greedy", "--max-new-tokens=3", "--json"]
    arguments += ["--device=cpu", "--prompt-file=-", "--prompt=b", "--system=Say"]
    asked, answered = {"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}
    lines = [{"messages": [asked, answered]}, {"prompt": [asked], "chosen": [answered]}]
    text = "\n".join(map(json.dumps, lines))
    (output,) = world.run(1, main, arguments, text, joined=False)
    rows = json.loads(output)
    said = [[message["content"] for message in row["prompt"]] for row in rows]
    assert said == [["Say", "b"], ["Say", "a"], ["Say", "a"]]
    assert rows[1] == rows[2] and all(len(row["tokens"]) == 3 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "a", "--system", "b"], "--system is a message of a conversation"),
        (["--prompt", "a", "--greedy", "--top-k", "5"], "--greedy draws nothing, so --top-k"),
        ([], "no prompt; give --prompt TEXT"),
        (["--prompt-file", "missing.txt"], "--prompt-file missing.txt cannot be read"),
    ],
)
def test_what_cannot_be_done_is_one_message_and_status_2(tmp_path, arguments, message):
    done = run("--checkpoint", tmp_path, *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert f"error: {message}" in done.stderr and "Traceback" not in done.stderr


def test_a_line_that_is_no_conversation_is_named(tmp_path):
    (tmp_path / "chats.jsonl").write_text('{"messages": [{"role": "user"}]}\n\n{"text": "x"}\n')
    file = tmp_path / "chats.jsonl"
    done = run("--checkpoint", tmp_path, "--chat", "--prompt-file", file)
    assert done.returncode == 2 and "line 3" in done.stderr and "is no conversation" in done.stderr


def test_a_prompt_file_must_be_text(tmp_path):
    (tmp_path / "prompt.txt").write_bytes("naïve".encode("latin-1"))
    done = run("--checkpoint", tmp_path, "--prompt-file", tmp_path / "prompt.txt")
    assert done.returncode == 2 and "not UTF-8 at byte 2" in done.stderr
