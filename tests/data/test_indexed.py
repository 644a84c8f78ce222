from pathlib import Path

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.data.indexed import (
    IndexedWriter,
    expect,
    merge,
    open_indexed,
    token_dtype,
)
from megatron_biollm.data.sidecar import read_sidecar, write_sidecar
from megatron_biollm.data.verify import verify_prefix

DOCUMENTS = [[[5, 6, 7]], [], [[1], [2, 3]], [[9, 2]]]


def add(writer: IndexedWriter, documents: list[list[list[int]]]) -> None:
    sequences = [sequence for document in documents for sequence in document]
    writer.add_documents(
        np.array([token for sequence in sequences for token in sequence], writer.dtype),
        np.array([len(sequence) for sequence in sequences], np.int32),
        np.array([len(document) for document in documents]),
    )


def interrupted(writer: IndexedWriter) -> None:
    add(writer, DOCUMENTS[:1])
    writer.finish()
    raise KeyboardInterrupt


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(("dtype", "name"), [("<u2", "uint16"), ("<i4", "int32")])
def test_the_writer_writes_the_described_bytes(tmp_path, spelled_out, dtype, name):
    with IndexedWriter(tmp_path / "c", np.dtype(name)) as writer:
        add(writer, DOCUMENTS[:2])
        add(writer, DOCUMENTS[2:])
        writer.finish()
        writer.commit()
    ids, index = spelled_out(DOCUMENTS, dtype)
    assert (tmp_path / "c.bin").read_bytes() == ids
    assert (tmp_path / "c.idx").read_bytes() == index
    assert files(tmp_path) == {"c.bin", "c.idx"}


def test_core_reads_what_was_written(tmp_path):
    with IndexedWriter(tmp_path / "c", np.dtype("uint16")) as writer:
        add(writer, DOCUMENTS)
        writer.finish()
        writer.commit()
    dataset = open_indexed(str(tmp_path / "c"), full_check=True)
    assert [dataset[i].tolist() for i in range(len(dataset))] == [[5, 6, 7], [1], [2, 3], [9, 2]]
    assert dataset.document_indices.tolist() == [0, 1, 1, 3, 4]


def test_an_error_leaves_no_file_and_keeps_the_older_corpus(tmp_path):
    with IndexedWriter(tmp_path / "c", np.dtype("uint16")) as writer:
        add(writer, DOCUMENTS)
        writer.finish()
        writer.commit()
    before = (tmp_path / "c.bin").read_bytes()
    writer = IndexedWriter(tmp_path / "c", np.uint16)
    with pytest.raises(KeyboardInterrupt), writer:
        interrupted(writer)
    assert files(tmp_path) == {"c.bin", "c.idx"}
    assert (tmp_path / "c.bin").read_bytes() == before


def test_the_dtype_is_megatrons():
    assert [token_dtype(n) for n in (34_000, 65_499, 65_500)] == [np.uint16, np.uint16, np.int32]


def test_an_empty_corpus_is_refused(tmp_path, spelled_out):
    for suffix, content in zip((".bin", ".idx"), spelled_out([[], []]), strict=True):
        (tmp_path / f"c{suffix}").write_bytes(content)
    with pytest.raises(UserError, match="no token at all"):
        open_indexed(str(tmp_path / "c"))


def test_merging_puts_corpora_one_after_another(tmp_path, write_corpus):
    prefixes = [write_corpus(name, seed=seed) for seed, name in enumerate("ab")]
    merge(prefixes, str(tmp_path / "both"))
    one, two, both = (open_indexed(prefix) for prefix in [*prefixes, str(tmp_path / "both")])
    parts = [list(one[i]) for i in range(len(one))] + [list(two[i]) for i in range(len(two))]
    assert [list(both[i]) for i in range(len(both))] == parts
    assert read_sidecar(str(tmp_path / "both")) is None


def test_merged_sidecars_add_up(tmp_path, write_corpus):
    numbers = dict.fromkeys(
        ("documents", "empty_documents", "bad_lines", "sequences", "tokens", "max_token_id"), 3
    )
    prefixes = [write_corpus(name) for name in "ab"]
    for prefix in prefixes:
        tokens = verify_prefix(prefix)
        known = {"tokens": tokens.tokens, "documents": 60, "max_token_id": tokens.max_token_id}
        write_sidecar(prefix, {"tokenizer": {"sha256": "1"}} | numbers | known)
    merge(prefixes, str(tmp_path / "both"))
    report = verify_prefix(str(tmp_path / "both"), vocab_size=99)
    assert report.fine, report.problems
    assert read_sidecar(str(tmp_path / "both"))["documents"] == 120


def test_corpora_of_two_tokenizers_are_not_merged(tmp_path, write_corpus):
    prefixes = [write_corpus(name) for name in "ab"]
    for number, prefix in enumerate(prefixes):
        write_sidecar(prefix, {"tokenizer": {"sha256": f"digest{number}"}})
    with pytest.raises(UserError, match="digest0.*digest1"):
        merge(prefixes, str(tmp_path / "both"))
    assert not (tmp_path / "both.bin").exists()


def test_corpora_of_two_dtypes_are_not_merged(tmp_path, write_corpus):
    prefix = write_corpus("a")
    with IndexedWriter(tmp_path / "wide", np.int32) as writer:
        add(writer, DOCUMENTS)
        writer.finish()
        writer.commit()
    with pytest.raises(UserError, match="int32.*uint16"):
        merge([prefix, str(tmp_path / "wide")], str(tmp_path / "both"))


def test_what_is_expected_is_read_as_ever(write_corpus):
    dataset = open_indexed(write_corpus(documents=80, longest=4000), shuffled=True)
    before = [dataset[number].tolist() for number in range(80)]
    random = np.random.default_rng(0)
    for _ in range(50):
        sequences = random.permutation(80)[: random.integers(1, 9)]
        skip = int(random.integers(0, len(before[sequences[0]])))
        expect(dataset, sequences, skip, int(random.integers(1, 20_000)))
    assert [dataset[number].tolist() for number in range(80)] == before
    expect(open_indexed(dataset.path_prefix, mmap=False), np.array([1]), 0, 5)
