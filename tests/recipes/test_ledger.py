import json

import pytest

from megatron_biollm.config import UserError, dump_config
from megatron_biollm.data.jumps import JumpingStream, positions_of
from megatron_biollm.data.stream import build_datasets
from megatron_biollm.recipes.ledger import check_ledger, subtract
from megatron_biollm.recipes.run_config import load_run_config
from megatron_biollm.training.rows import batch_hash
from tests.integration.recipe import write_inputs

BATCH = 16


class Books:
    """A run's folder as training leaves it: twelve steps of sixteen samples."""

    def __init__(self, folder, jumped=(), steps=12, interval=1):
        self.run_dir = folder / "run"
        self.run_dir.mkdir()
        options = [*write_inputs(folder), f"run_dir={self.run_dir}", "model.vocab_size=400"]
        options += [f"training.train_iters={steps}", f"logging.log_interval={interval}"]
        self.config = load_run_config(None, options)
        (self.run_dir / "config.yaml").write_text(dump_config(self.config))
        stream = build_datasets(self.config.data, 64, self.config.training.seed, eod=2).train
        self.jumped = [list(piece) for piece in jumped]
        stream = JumpingStream(stream, self.jumped)
        self.rows, self.incidents = [], []
        for step in range(interval, steps + 1, interval):
            end = step * BATCH
            samples = [{"tokens": stream[i]["tokens"][None]} for i in range(end - BATCH, end)]
            row = {"step": step, "consumed_samples": end, "loss": 1.0}
            self.rows.append(row | {"batch_hash": f"{batch_hash(samples):016x}"})

    def row(self, step):
        return next(row for row in self.rows if row["step"] == step)

    def skip(self, step):
        row = self.row(step)
        row["skipped"] = True
        samples = positions_of((step - 1) * BATCH, BATCH, self.jumped)
        incident = {"step": step, "action": "skip", "samples": samples}
        self.incidents.append(incident | {"batch_hash": row["batch_hash"]})

    def rewind(self, step, to, jumped):
        row = {"step": step, "action": "rewind", "rewind_to": to, "jumped": jumped}
        self.incidents.append(row)

    def check(self, rehash=None):
        for name, rows in (("metrics", self.rows), ("incidents", self.incidents)):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (self.run_dir / f"{name}.jsonl").write_text(text)
        return check_ledger(self.run_dir, rehash)


def test_an_undisturbed_run_has_trained_on_every_sample_once(tmp_path):
    ledger = Books(tmp_path).check()
    assert not ledger.problems and ledger.trained == [[0, 192]]
    assert ledger.rehashed == list(range(1, 13))


def test_skipped_and_jumped_samples_are_listed(tmp_path):
    books = Books(tmp_path, jumped=[[96, 144]])
    books.rewind(8, to=3, jumped=[96, 144])
    books.skip(9)
    ledger = books.check()
    assert not ledger.problems and ledger.rewinds == 1
    assert ledger.jumped == [[96, 144]] and ledger.skipped == [[176, 192]]
    assert ledger.trained == [[0, 96], [144, 176], [192, 240]]


def test_steps_between_two_logged_ones_follow_from_the_batch_size(tmp_path):
    ledger = Books(tmp_path, interval=4).check()
    assert not ledger.problems and ledger.trained == [[0, 192]] and ledger.rehashed == [4, 8, 12]


def test_some_batches_are_drawn_and_those_around_an_incident_are_certain(tmp_path):
    books = Books(tmp_path)
    books.skip(6)
    assert books.check(rehash=0).rehashed == []
    assert {5, 6, 7} <= set(books.check(rehash=2).rehashed) != set(range(1, 13))


def falsify(books, damage):
    if damage == "another batch":
        books.row(5)["batch_hash"] = "0" * 16
    if damage == "a lost row":
        books.rows = [row for row in books.rows if row["step"] != 5]
        for row in books.rows[4:]:
            row["consumed_samples"] -= BATCH
    if damage == "a row twice":
        books.rows.insert(5, books.rows[4])
    if damage == "no first rows":
        books.rows = books.rows[2:]
    if damage == "a skip that nobody lists":
        books.row(5)["skipped"] = True
    if damage == "a listed skip that was none":
        books.skip(5)
        del books.row(5)["skipped"]
    if damage == "an incident of other samples":
        books.skip(5)
        books.incidents[0]["samples"] = [[0, 16]]
    if damage == "a jump over what was trained on":
        books.rewind(9, to=5, jumped=[64, 96])
    return books


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("another batch", "step 5 trained on a batch of hash 0000000000000000"),
        ("a lost row", "steps 5 to 6 should end at 96 consumed samples, not 80"),
        ("a row twice", "step 5 does not follow step 5"),
        ("no first rows", "the rows of steps 1 to 2 are missing"),
        ("a skip that nobody lists", "step 5 was skipped according to metrics.jsonl alone"),
        ("a listed skip that was none", "step 5 was skipped according to incidents.jsonl alone"),
        ("an incident of other samples", "the incident of step 5 lists other samples"),
        ("a jump over what was trained on", "its checkpoint of step 5 had trained on"),
    ],
)
def test_books_that_do_not_balance_say_where(tmp_path, damage, problem):
    ledger = falsify(Books(tmp_path), damage).check()
    assert any(problem in found for found in ledger.problems), ledger.problems


def test_a_superseded_skip_is_no_skip_of_the_run(tmp_path):
    books = Books(tmp_path)
    books.skip(5)
    del books.row(5)["skipped"]
    books.incidents[0]["superseded"] = True
    assert not books.check().problems


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.jsonl does not exist; give the run_dir"):
        check_ledger(tmp_path)


def test_ranges_are_subtracted():
    assert subtract([[0, 10], [20, 30]], [[2, 4], [8, 22]]) == [[0, 2], [4, 8], [22, 30]]
    assert subtract([[0, 10]], [[0, 10]]) == []
