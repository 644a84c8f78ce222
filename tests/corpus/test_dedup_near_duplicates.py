"""Near-duplicates are found, the right one stays, and no stage takes a part for the whole."""

import json
import pickle
import random
from itertools import pairwise

import numpy as np
import pytest
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import MinhashDedupBuckets

from megatron_biollm.config import UserError
from megatron_biollm.corpus.dedup.buckets import Buckets
from megatron_biollm.corpus.dedup.cluster import (
    Clusters,
    cluster_folder,
    near_duplicate_filter,
    split,
)
from megatron_biollm.corpus.dedup.config import ContainmentConfig, NearDuplicateConfig
from megatron_biollm.corpus.dedup.containment import Contained, Shares
from megatron_biollm.corpus.dedup.removals import read_samples, read_summary
from megatron_biollm.corpus.dedup.shingles import hash_words, shingle
from megatron_biollm.corpus.dedup.signatures import (
    ROW_BYTES,
    Signatures,
    datatrove_config,
    minhash,
    one_byte_each,
    signature_folder,
    similarities,
)
from megatron_biollm.corpus.dedup.sketches import SharedShingles, Sketches
from tests.corpus.made_dedup import find_near_duplicates, without_near_duplicates
from tests.corpus.made_texts import Author, document, run_step, sharded

CONFIG = NearDuplicateConfig()


@pytest.fixture
def author():
    return Author(7)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.15])
def test_edited_copies_are_found_and_nothing_else(author, tmp_path, share):
    texts = [author.text(220) for _ in range(400)]
    originals = [document(f"{n}", text) for n, text in enumerate(texts)]
    copies = [document(f"{n}e", author.edited(texts[n], share)) for n in range(0, 400, 2)]
    left = without_near_duplicates(sharded(originals + copies, 3), tmp_path)
    found = sum(copy.id not in left or copy.id[:-1] not in left for copy in copies)
    dropped = len(originals) + len(copies) - len(left)
    assert found / len(copies) >= 0.95
    assert found / dropped >= 0.98


@pytest.mark.parametrize("seed", range(3))
def test_the_one_kept_does_not_depend_on_the_order(author, tmp_path, seed):
    text = author.text(150)
    documents = [document(str(n), author.text(100)) for n in range(10)]
    documents += [document("200", text), document("30", text), document("30", text, "patents")]
    random.Random(seed).shuffle(documents)
    find_near_duplicates(sharded(documents, 4), tmp_path)
    dropped = []
    for rank, shard in enumerate(sharded(documents, 4)):
        step = near_duplicate_filter(tmp_path)
        run_step(step, shard, rank, 4)
        dropped += [(s["source"], s["id"], s["detail"]) for s in step.flow.samples]
    detail = "pubmed 30, similarity 1.00"
    assert sorted(dropped) == [("patents", "30", detail), ("pubmed", "200", detail)]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"source": "pmc"}, {"source": "pubmed", "words": 160}),
        ({"version": 2}, {"version": 1, "words": 160}),
        ({"words": 160}, {"words": 150}),
        ({}, {"retracted": True, "version": 3}),
    ],
)
def test_the_document_most_worth_keeping_stays(author, tmp_path, better, worse):
    words = author.text(160).split()

    def of(id, source="pubmed", words_kept=150, **metadata):
        return document(id, " ".join(words[:words_kept]), source, **metadata)

    for values in (better, worse):
        values["words_kept"] = values.pop("words", 150)
    assert without_near_duplicates([[of("a", **worse), of("b", **better)]], tmp_path) == {"b"}


def test_of_many_copies_one_stays_however_the_work_is_shared(author, tmp_path):
    text = author.text(120)
    copies = [document(str(100 + n), text) for n in range(50)]
    assert without_near_duplicates(sharded(copies, 7), tmp_path / "1") == {"100"}
    assert without_near_duplicates(sharded(copies, 7), tmp_path / "2", workers=2) == {"100"}


def test_what_shares_only_a_form_stays(author, tmp_path):
    form = author.text(150)
    notes = [document(str(n), f"{form} {author.text(150)}") for n in range(20)]
    assert len(without_near_duplicates([notes], tmp_path)) == 20


def test_a_chain_of_ever_different_texts_is_not_dropped_whole():
    rows = np.random.default_rng(0).integers(0, 256, (1, ROW_BYTES), np.uint8).repeat(9, axis=0)
    for place in range(1, 9):
        rows[place:, np.random.default_rng(place).permutation(ROW_BYTES)[: ROW_BYTES // 4]] += place
    clusters = list(split(rows, np.zeros(9, bool), CONFIG))
    assert 0 < sum(len(cluster.dropped) for cluster in clusters) < 8
    assert clusters[0].kept == 0 and 8 not in clusters[0].dropped


def test_short_texts_have_signatures_and_texts_without_words_are_left_alone(tmp_path):
    texts = ["Reply.", "reply", "No comment", "***", "???", "\u2026"]
    documents = [document(str(n), text) for n, text in enumerate(texts)]
    assert without_near_duplicates([documents], tmp_path) == {"0", "2", "3", "4", "5"}


def test_empty_shards_and_an_empty_corpus_pass(author, tmp_path):
    text = author.text(100)
    shards = [[], [document("1", text)], [], [document("2", text)]]
    assert without_near_duplicates(shards, tmp_path / "some") == {"1"}
    assert without_near_duplicates([[], []], tmp_path / "none") == set()


def test_signatures_estimate_the_similarity(author):
    text = author.text(1000)
    for share in (0.0, 0.02, 0.1, 0.3):
        words = hash_words([text, author.edited(text, share)])
        hashes, offsets = shingle(words, 3)
        first, second = (set(hashes[start:end].tolist()) for start, end in pairwise(offsets))
        rows = one_byte_each(minhash(hashes, offsets, ROW_BYTES, seed=1))
        estimate = similarities(rows[:1], rows[1:])[0][0]
        assert estimate == pytest.approx(len(first & second) / len(first | second), abs=0.11)


def test_datatrove_reads_the_signatures(author, tmp_path):
    text = author.text(80)
    shards = [[document("1", text), document("2", author.text(80))], [], [document("3", text)]]
    for rank, shard in enumerate(shards):
        run_step(Signatures(CONFIG, tmp_path), shard, rank, 3)
    folder = str(signature_folder(tmp_path))
    MinhashDedupBuckets(folder, str(tmp_path / "out"), config=datatrove_config(CONFIG)).run(
        None, 5, CONFIG.num_buckets
    )
    pairs = np.fromfile(tmp_path / "out" / "00005_00.dups", "<u4")
    assert pairs.tolist() == [0, 0, 2, 0]


def test_the_report_shows_the_members_of_clusters(author, tmp_path):
    text = author.text(100)
    without_near_duplicates(
        [[document("1", text), document("2", author.text(90)), document("3", text)]], tmp_path
    )
    assert read_summary(cluster_folder(tmp_path))["sizes"] == {"2": 1}
    samples = read_samples(cluster_folder(tmp_path))
    assert [(s["id"], s["kept"]) for s in samples] == [("1", True), ("3", False)]
    assert all(sample["text"] == text[:600] for sample in samples)


class TestRefused:
    @pytest.fixture
    def shards(self, author):
        return sharded([document(str(n), author.text(60)) for n in range(9)], 3)

    def test_a_missing_task_of_the_stage_before(self, shards, tmp_path):
        for rank in (0, 2):
            run_step(Signatures(CONFIG, tmp_path), shards[rank], rank, 3)
        with pytest.raises(UserError, match=r"of 3 tasks 1 are not done \(\[1\]"):
            run_step(Buckets(CONFIG, tmp_path), None, 0, 40)

    def test_no_task_at_all(self, tmp_path):
        with pytest.raises(UserError, match="no task is done"):
            run_step(near_duplicate_filter(tmp_path), [], 0, 1)

    def test_a_signature_task_that_broke_off(self, shards, tmp_path):
        find_near_duplicates(shards, tmp_path)
        with pytest.raises(ZeroDivisionError):
            run_step(Signatures(CONFIG, tmp_path), (1 / 0 for _ in "x"), 1, 3)
        with pytest.raises(UserError, match="not done"):
            run_step(Clusters(CONFIG, tmp_path), None, 0, 1)

    def test_tasks_left_from_a_run_with_more_shards(self, shards, tmp_path):
        find_near_duplicates(shards, tmp_path)
        run_step(Signatures(CONFIG, tmp_path), shards[0], 0, 1)
        with pytest.raises(UserError, match="another run"):
            run_step(Buckets(CONFIG, tmp_path), None, 0, 40)

    def test_signatures_of_other_settings(self, shards, tmp_path):
        find_near_duplicates(shards, tmp_path)
        with pytest.raises(UserError, match="settings differs"):
            run_step(Buckets(NearDuplicateConfig(ngram=5), tmp_path), None, 0, 40)

    def test_pairs_of_other_signatures(self, shards, tmp_path):
        find_near_duplicates(shards, tmp_path)
        run_step(Signatures(CONFIG, tmp_path), shards[0][:1], 0, 3)
        with pytest.raises(UserError, match="signatures differs"):
            run_step(Clusters(CONFIG, tmp_path), None, 0, 1)

    def test_other_documents_than_were_judged(self, shards, tmp_path):
        find_near_duplicates(shards, tmp_path)
        with pytest.raises(UserError, match="are not those"):
            run_step(near_duplicate_filter(tmp_path), shards[0][1:], 0, 3)

    def test_another_number_of_shards(self, shards, tmp_path):
        find_near_duplicates(shards, tmp_path)
        with pytest.raises(UserError, match="made for 3"):
            run_step(near_duplicate_filter(tmp_path), shards[0], 0, 2)

    def test_tasks_that_do_not_fit_the_buckets(self, tmp_path):
        with pytest.raises(UserError, match="41 tasks for 40 buckets"):
            run_step(Buckets(CONFIG, tmp_path), None, 0, 41)

    @pytest.mark.parametrize(
        "values", [{"similarity": 0.0}, {"num_buckets": 100}, {"ngram": 0}, {"word_similarity": 2}]
    )
    def test_settings_out_of_range(self, values):
        with pytest.raises(UserError):
            NearDuplicateConfig(**values)


def test_a_stopped_task_leaves_no_scratch_file(tmp_path, author):
    def breaks_off():
        yield document("1", author.text(50))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_step(Signatures(CONFIG, tmp_path), breaks_off(), 0, 1)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    run_step(Signatures(CONFIG, tmp_path), [document("1", author.text(50))], 0, 1)
    record = json.loads((signature_folder(tmp_path) / "tasks" / "00000.json").read_text())
    assert record["documents"] == 1


@pytest.mark.parametrize(
    "step",
    [Signatures, Buckets, Clusters, Sketches, SharedShingles, Shares, Contained],
)
def test_every_step_can_be_sent_to_a_worker(step, tmp_path):
    config = CONFIG if step in (Signatures, Buckets, Clusters) else ContainmentConfig()
    assert pickle.loads(pickle.dumps(step(config, tmp_path))).settings == config


def test_the_stages_run_on_an_executor_of_datatrove(author, tmp_path):
    text = author.text(80)
    shards = [[document("1", text)], [document("2", text)]]
    for rank, shard in enumerate(shards):
        run_step(Signatures(CONFIG, tmp_path), shard, rank, 2)
    for step, tasks in ((Buckets, CONFIG.num_buckets), (Clusters, 1)):
        LocalPipelineExecutor(
            [step(CONFIG, tmp_path)],
            tasks=tasks,
            logging_dir=str(tmp_path / step.__name__),
            skip_completed=False,
        ).run()
    assert read_summary(cluster_folder(tmp_path))["clusters"] == 1
