import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "plot_run.py"


def run_tool(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_prints_the_path_of_the_picture(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 5.0}\n{"step": 2, "loss": 4.0}\n')
    done = run_tool(tmp_path, "--output", tmp_path / "loss.png")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'loss.png'}\n"), done.stderr
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_metrics_is_one_message_and_status_2(tmp_path):
    done = run_tool(tmp_path, "--output", tmp_path / "loss.png")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_shows_an_example():
    done = run_tool("--help")
    assert done.returncode == 0
    assert "example:\n  python tools/plot_run.py runs/first" in done.stdout
