import pytest

from megatron_biollm.config import UserError
from megatron_biollm.corpus.document import Document, Section
from megatron_biollm.corpus.shards import (
    ReadShard,
    ShardFile,
    WriteCounts,
    WriteShard,
    WriteSources,
    read_shard,
    read_sidecar,
    shard_path,
)
from megatron_biollm.corpus.steps import from_datatrove, to_datatrove

DOCUMENTS = [
    Document("one β", "1", "pubmed", sections=(Section("title", 0, 3),), metadata={"pmid": "1"}),
    Document("two", "2", "pmc", licence="CC BY 4.0"),
    Document("three", "3", "pubmed"),
]


def write(step, documents=DOCUMENTS, rank=0):
    return list(step.run(iter([to_datatrove(d) for d in documents]), rank))


def test_documents_come_back_as_they_were(tmp_path):
    write(WriteShard(tmp_path, []))
    assert list(read_shard(shard_path(tmp_path, 0))) == DOCUMENTS
    assert [from_datatrove(d) for d in ReadShard(tmp_path).run(rank=0)] == DOCUMENTS
    assert read_sidecar(tmp_path, 0)["documents_by_source"] == {"pubmed": 2, "pmc": 1}


def test_a_shard_without_documents_is_a_shard(tmp_path):
    write(WriteShard(tmp_path, []), documents=[])
    assert list(ReadShard(tmp_path).run(rank=0)) == []


def test_an_error_leaves_no_shard_and_no_temporary_file(tmp_path):
    def broken():
        yield to_datatrove(DOCUMENTS[0])
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        list(WriteShard(tmp_path, []).run(broken(), 0))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_task_left_is_swept_away(tmp_path):
    left = tmp_path / ".00000.jsonl.zst.4711.tmp"
    left.write_bytes(b"half")
    write(WriteShard(tmp_path, []))
    assert not left.exists()


def test_a_cut_or_changed_shard_is_refused(tmp_path):
    write(WriteShard(tmp_path, []))
    path = shard_path(tmp_path, 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(UserError, match=r"00000.jsonl.zst (cannot be read|holds 0 documents)"):
        list(ReadShard(tmp_path).run(rank=0))
    with ShardFile(path) as shard:
        shard.write(DOCUMENTS[0])
        shard.commit({"documents": 3})
    with pytest.raises(UserError, match="holds 1 documents, but 3 were written"):
        list(ReadShard(tmp_path).run(rank=0))


def test_a_shard_without_its_sidecar_was_not_completed(tmp_path):
    with pytest.raises(UserError, match="00007.json is missing"):
        list(ReadShard(tmp_path).run(rank=7))


def test_sources_lie_apart_and_old_ones_of_the_task_are_removed(tmp_path):
    write(WriteSources(tmp_path))
    assert [d.id for d in read_shard(shard_path(tmp_path / "pubmed", 0))] == ["1", "3"]
    write(WriteSources(tmp_path), [Document("t", "9", "../evil/name")])
    assert sorted(p.name for p in tmp_path.rglob("*.zst")) == ["00000.jsonl.zst"]
    assert next(read_shard(shard_path(tmp_path / "_evil_name", 0))).id == "9"


def test_two_odd_names_of_one_folder_share_their_shard(tmp_path):
    write(WriteSources(tmp_path), [Document("t", "1", "a b"), Document("u", "2", "a/b")])
    assert [d.id for d in read_shard(shard_path(tmp_path / "a_b", 0))] == ["1", "2"]
    assert read_sidecar(tmp_path / "a_b", 0)["documents"] == 2


def test_counts_alone_hold_no_document(tmp_path):
    write(WriteCounts(tmp_path, []))
    assert read_sidecar(tmp_path, 0) == {"documents": 3, "flows": []}
    assert [path.name for path in tmp_path.iterdir()] == ["00000.json"]
