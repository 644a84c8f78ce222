import contextlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap

import pytest

from megatron_biollm import log
from megatron_biollm.config import UserError
from megatron_biollm.log import (
    LoggingConfig,
    MetricsLogger,
    Progress,
    get_logger,
    run_tool,
    setup_logging,
)
from megatron_biollm.rows import read_rows


def run_python(body: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )


class TestLogger:
    def test_rank_0_shows_information_on_stderr_and_nothing_on_stdout(self, capsys):
        setup_logging(rank=0, world_size=4)
        get_logger("training.loop").info("step 1")
        out, err = capsys.readouterr()
        assert out == ""
        assert err.endswith("] step 1\n") and "rank" not in err

    def test_other_ranks_show_only_warnings_and_say_who_they_are(self, capsys):
        setup_logging(rank=3, world_size=4)
        get_logger("training.loop").info("step 1")
        get_logger("training.loop").warning("slow")
        err = capsys.readouterr().err
        assert "step 1" not in err
        assert err.endswith("rank 3] warning: slow\n")

    def test_every_rank_writes_all_of_its_lines_to_its_own_file(self, tmp_path):
        for rank in (0, 3):
            setup_logging(rank, 4, tmp_path / "logs")
            get_logger("megatron_biollm.training").info("step of %d", rank)
        for rank in (0, 3):
            text = (tmp_path / "logs" / f"rank_{rank:05d}.log").read_text()
            assert "INFO megatron_biollm.training: step of " + str(rank) in text
            assert text.count("\n") == 1

    def test_a_second_setup_replaces_the_first(self, capsys):
        setup_logging()
        setup_logging()
        get_logger("x").info("once")
        assert capsys.readouterr().err.count("once") == 1

    def test_a_configured_root_logger_does_not_double_the_lines(self, capsys):
        root_handler = logging.StreamHandler(sys.stderr)
        logging.getLogger().addHandler(root_handler)
        try:
            setup_logging()
            get_logger("x").info("once")
        finally:
            logging.getLogger().removeHandler(root_handler)
        assert capsys.readouterr().err.count("once") == 1

    def test_an_exception_keeps_its_traceback(self, capsys):
        setup_logging()
        try:
            raise RuntimeError("deep")
        except RuntimeError:
            get_logger("x").exception("failed")
        err = capsys.readouterr().err
        assert "error: failed" in err and "RuntimeError: deep" in err


class TestRunTool:
    def test_success_is_0_and_a_status_returned_by_main_is_kept(self):
        assert run_tool(lambda: None) == 0
        assert run_tool(lambda: 3) == 3

    def test_a_user_error_is_one_line_and_status_2(self):
        done = run_python("""
            import sys
            from megatron_biollm.config import UserError
            from megatron_biollm.log import run_tool
            def main():
                raise UserError("training.micro_batch_size is 3, but it must divide 8; give 2")
            sys.exit(run_tool(main))
        """)
        assert done.returncode == 2
        assert done.stderr == (
            "error: training.micro_batch_size is 3, but it must divide 8; give 2\n"
        )
        assert done.stdout == ""

    def test_a_defect_keeps_its_traceback_and_is_status_1(self, capsys, tmp_path):
        setup_logging(rank=0, world_size=1, log_dir=tmp_path)

        def main():
            raise KeyError("lost")

        assert run_tool(main) == 1
        assert capsys.readouterr().err.count("KeyError: 'lost'") == 1
        assert "KeyError: 'lost'" in (tmp_path / "rank_00000.log").read_text()

    def test_the_keyboard_is_status_130_without_a_traceback(self, capsys):
        def main():
            raise KeyboardInterrupt

        assert run_tool(main) == 130
        assert capsys.readouterr().err == "interrupted\n"

    def test_missing_kernels_are_no_warning_in_the_tool_and_in_the_processes_it_starts(self):
        done = run_python("""
            import subprocess, sys, warnings
            from megatron_biollm.log import run_tool
            code = "import warnings; warnings.warn('Transformer Engine and Apex are not installed')"
            def main():
                exec(code)
                warnings.warn("something else")
                subprocess.run([sys.executable, "-c", code], check=True)
            sys.exit(run_tool(main))
        """)
        assert done.returncode == 0
        assert "something else" in done.stderr
        assert "Apex" not in done.stderr

    def test_ranks_that_fail_alike_before_they_are_connected_speak_once(self, capsys, monkeypatch):
        def main():
            raise UserError("no")

        said, waited = [], []
        monkeypatch.setattr(log.time, "sleep", lambda seconds: waited.append(local_rank))
        for local_rank in range(4):
            monkeypatch.setenv("LOCAL_RANK", str(local_rank))
            assert run_tool(main) == 2
            said.append(capsys.readouterr().err)
        assert said == ["error: no\n", "", "", ""]
        assert waited == [1, 2, 3]  # torchrun ends them all when the first has ended


class TestProgress:
    def test_off_a_terminal_it_says_a_line_every_so_often_and_one_at_the_end(self, capsys):
        with Progress(total=4, description="encode", unit="doc", every_s=0.0) as progress:
            for _ in range(4):
                progress.update(loss=1.5)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 4
        assert (
            lines[-1].startswith("encode: 100%") and "4/4" in lines[-1] and "loss=1.5" in lines[-1]
        )

    def test_off_a_terminal_a_quick_task_is_one_line(self, capsys):
        assert list(Progress(3, "read").track("abc")) == ["a", "b", "c"]
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and "3/3" in err

    def test_an_earlier_run_counts_as_done(self, capsys):
        with Progress(total=10, description="train", initial=6) as progress:
            progress.update(2)
        assert "8/10" in capsys.readouterr().err

    def test_a_silent_rank_says_nothing(self, capsys):
        with Progress(total=2, description="train", enabled=False, every_s=0.0) as progress:
            progress.update(2, loss=1.0)
        assert capsys.readouterr() == ("", "")


@pytest.fixture
def quiet():
    return LoggingConfig(tensorboard=False)


class TestMetrics:
    def test_each_row_is_on_disk_at_once(self, tmp_path, quiet):
        metrics = MetricsLogger(tmp_path, quiet)
        metrics.log({"step": 1, "loss": 2.5})
        assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 2.5}]
        metrics.close()

    def test_numbers_survive_bit_for_bit(self, tmp_path, quiet):
        loss = 0.1 + 0.2
        metrics = MetricsLogger(tmp_path, quiet)
        metrics.log({"step": 1, "loss": loss})
        metrics.close()
        assert read_rows(tmp_path / "metrics.jsonl")[0]["loss"] == loss

    def test_resume_cuts_the_steps_that_will_come_again(self, tmp_path, quiet):
        first = MetricsLogger(tmp_path, quiet)
        for step in (1, 2, 3, 4):
            first.log({"step": step, "loss": 1.0 / step})
        first.close()
        second = MetricsLogger(tmp_path, quiet, resume_step=2)
        second.log({"step": 3, "loss": 9.0})
        second.close()
        rows = read_rows(tmp_path / "metrics.jsonl")
        assert [(row["step"], row["loss"]) for row in rows] == [(1, 1.0), (2, 0.5), (3, 9.0)]
        assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]

    def test_a_line_torn_by_a_killed_writer_is_cut_on_resume(self, tmp_path, quiet):
        path = tmp_path / "metrics.jsonl"
        path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
        metrics = MetricsLogger(tmp_path, quiet, resume_step=2)
        metrics.log({"step": 3, "loss": 1.0})
        metrics.close()
        assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3]

    def test_a_loss_that_is_not_finite_leaves_valid_json(self, tmp_path, quiet):
        metrics = MetricsLogger(tmp_path, quiet)
        metrics.log({"step": 1, "loss": float("nan"), "grad_norm": float("inf")})
        metrics.close()
        assert (tmp_path / "metrics.jsonl").read_text() == (
            '{"step": 1, "loss": null, "grad_norm": null}\n'
        )

    def test_tensors_and_numpy_numbers_are_written_as_numbers(self, tmp_path, quiet):
        import numpy
        import torch

        metrics = MetricsLogger(tmp_path, quiet)
        metrics.log({"step": numpy.int64(1), "loss": torch.tensor(0.5)})
        metrics.close()
        assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.5}]

    def test_a_full_disk_ends_no_run_and_tears_no_row(self, tmp_path, quiet, room_for):
        metrics = MetricsLogger(tmp_path, quiet)
        metrics.log({"step": 1, "loss": 2.0})
        with room_for(5):
            metrics.log({"step": 2, "loss": 1.5})
            metrics.log({"step": 3, "loss": 1.4})
            assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1]
        metrics.log({"step": 4, "loss": 1.2})
        metrics.close()
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]

    def test_rows_that_find_no_room_until_the_end_are_an_error(self, tmp_path, quiet, room_for):
        metrics = MetricsLogger(tmp_path, quiet)
        with room_for(5):
            metrics.log({"step": 7, "loss": 1.5})
            with pytest.raises(UserError, match="the rows of steps 7 to 7 are lost"):
                metrics.close()
        assert (tmp_path / "metrics.jsonl").read_text() == ""

    def test_a_value_that_was_to_come_later_completes_its_row(self, tmp_path, quiet):
        first = MetricsLogger(tmp_path, quiet)
        first.log({"step": 1, "loss": 2.0, "validation_loss": None})
        first.close()
        second = MetricsLogger(tmp_path, quiet, resume_step=1)
        assert second.lacks(1, "validation_loss") and not second.lacks(1, "loss")
        second.complete(1, {"validation_loss": 1.9})
        second.log({"step": 2, "loss": 1.8})
        second.close()
        assert read_rows(tmp_path / "metrics.jsonl") == [
            {"step": 1, "loss": 2.0, "validation_loss": 1.9},
            {"step": 2, "loss": 1.8},
        ]

    def test_ranks_other_than_0_write_nothing(self, tmp_path):
        metrics = MetricsLogger(tmp_path / "run", LoggingConfig(), rank=1)
        metrics.log({"step": 1, "loss": 1.0})
        metrics.close()
        assert not (tmp_path / "run").exists()

    def test_tensorboard_holds_the_same_numbers(self, tmp_path):
        accumulator = pytest.importorskip(
            "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is absent"
        )
        metrics = MetricsLogger(tmp_path, LoggingConfig(tensorboard=True))
        for step in (1, 2):
            metrics.log({"step": step, "loss": 1.0 / step, "layout": "TP2", "grad_norm": None})
        metrics.close()
        events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
        assert events.Tags()["scalars"] == ["loss"]
        assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 0.5)]

    def test_wandb_that_is_asked_for_and_absent_is_an_error_before_anything_is_cut(self, tmp_path):
        if _installed("wandb"):
            pytest.skip("wandb is installed here")
        path = tmp_path / "metrics.jsonl"
        path.write_text('{"step": 9}\n')
        with pytest.raises(
            UserError, match="'bio', but wandb is not installed; `pip install wandb`"
        ):
            MetricsLogger(tmp_path, LoggingConfig(wandb_project="bio"))
        assert path.read_text() == '{"step": 9}\n'

    def test_an_interval_below_one_step_is_refused(self):
        with pytest.raises(UserError, match="logging.log_interval is 0"):
            LoggingConfig(log_interval=0)


@pytest.fixture
def room_for(tmp_path):
    """Inside the `with`, no file of the process may grow beyond that many bytes past metrics.jsonl;
    a limit on file size fails a write as a full disk does."""

    @contextlib.contextmanager
    def limited(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = (tmp_path / "metrics.jsonl").stat().st_size + size
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    return limited


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None
