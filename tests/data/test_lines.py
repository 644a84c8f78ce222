import gzip
import itertools
import json

import pytest
import zstandard

from megatron_biollm.config import UserError
from megatron_biollm.data.lines import (
    Shard,
    count_lines_before,
    find_inputs,
    plan_shards,
    read_lines,
    read_rows,
    shard_bytes,
)

MIB = 1 << 20


def all_lines(shard, block=None):
    return [bytes(line) for lines in read_lines(shard, block) for line in lines]


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"a", b"a\n", b"a\nb", b"\n\na\n", b"ab\r\ncd\r\n", b"a\n\nb\n\n", b"abcdef\ng"],
)
def test_every_line_is_in_exactly_one_shard_wherever_the_cuts_fall(tmp_path, content):
    path = tmp_path / "f"
    path.write_bytes(content)
    expected = content.removesuffix(b"\n").split(b"\n") if content else []
    for size in range(1, len(content) + 1):
        cuts = [*range(0, len(content), size), len(content)]
        shards = [
            Shard(str(path), "lines", start, end, None if start else 1)
            for start, end in itertools.pairwise(cuts)
        ]
        assert [line for shard in shards for line in all_lines(shard)] == expected
        before = 0
        for shard in shards:
            lines = all_lines(shard)
            assert not lines or count_lines_before(shard) == before
            before += len(lines)


def test_a_line_longer_than_shards_and_chunks_stays_whole(tmp_path):
    long = b"x" * (5 * MIB)
    (tmp_path / "f").write_bytes(b"a\n" + long + b"\nb\n")
    cuts = [*range(0, 5 * MIB, MIB), 5 * MIB + 5]
    found = [
        all_lines(Shard(str(tmp_path / "f"), "lines", start, end))
        for start, end in itertools.pairwise(cuts)
    ]
    assert found == [[b"a", long], [], [], [], [b"b"]]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("workers", [1, 2])
def test_packed_files_give_the_same_lines_alone_and_in_blocks(tmp_path, suffix, workers):
    content = b"".join(b'{"text": "%d"}\n' % n for n in range(600_000)) + b"last"
    pack = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor().compress
    path = tmp_path / f"f{suffix}"
    half = len(content) // 2
    path.write_bytes(pack(content[:half]) + pack(content[half:]))  # two members, two frames
    shards = list(plan_shards([str(path)], workers))
    assert {shard.kind for shard, _ in shards} == ({"packed"} if workers == 1 else {"block"})
    assert len(shards) == (1 if workers == 1 else 3)
    lines = [line for shard, block in shards for line in all_lines(shard, block)]
    assert lines == content.split(b"\n")
    counted = 0
    for shard, block in shards:
        assert count_lines_before(shard) == counted
        counted += len(all_lines(shard, block))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("name", "torn"),
    [
        ("a.jsonl.gz", gzip.compress(b"some line\n" * 100)[:-12]),
        ("a.jsonl.gz", b"no gzip at all"),
        ("a.jsonl.zst", zstandard.ZstdCompressor().compress(b"some line\n" * 100)[:-5]),
        ("a.jsonl.zst", b"no zstd at all"),
    ],
)
def test_a_torn_file_is_named(tmp_path, name, torn, workers):
    path = tmp_path / name
    path.write_bytes(torn)
    with pytest.raises(UserError, match=f"{name} is not a complete"):
        [all_lines(*shard) for shard in plan_shards([str(path)], workers)]


def test_parquet_is_read_by_row_groups(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"text": [f"t{n}" for n in range(10)], "id": range(10)})
    parquet.write_table(table, tmp_path / "f.parquet", row_group_size=4)
    shards = [shard for shard, _ in plan_shards([str(tmp_path / "f.parquet")], 1)]
    rows = [row for shard in shards for batch in read_rows(shard, ["text"]) for row in batch]
    assert rows == [{"text": f"t{n}"} for n in range(10)]
    assert [count_lines_before(shard) for shard in shards] == [0, 4, 8]
    with pytest.raises(UserError, match="has no column body; it has text, id"):
        list(read_rows(shards[0], ["body"]))
    (tmp_path / "g.parquet").write_bytes((tmp_path / "f.parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match="g.parquet is not a whole Parquet file"):
        list(plan_shards([str(tmp_path / "g.parquet")], 1))


def test_cuts_depend_on_the_input_alone():
    assert shard_bytes(10 * MIB) == 4 * MIB
    assert shard_bytes(1024 * MIB) == 16 * MIB
    assert shard_bytes(10**13) == 64 * MIB


def test_a_pattern_without_a_file_is_named(tmp_path):
    with pytest.raises(UserError, match="names no file"):
        find_inputs(str(tmp_path / "*.jsonl"))


def test_files_of_a_pattern_come_by_name(tmp_path):
    for name in ("2.jsonl", "1.jsonl"):
        (tmp_path / name).write_text(json.dumps({"text": name}))
    assert find_inputs(str(tmp_path / "*.jsonl")) == [
        str(tmp_path / "1.jsonl"),
        str(tmp_path / "2.jsonl"),
    ]
