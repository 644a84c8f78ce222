from pathlib import Path

import numpy as np
import pytest

from megatron_biollm.config import UserError
from megatron_biollm.data import layout as layout_module
from megatron_biollm.data.layout import check_index, fingerprint, read_layout


def change(path: Path, offset: int, new: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(new)] = new
    path.write_bytes(bytes(content))


def test_a_whole_corpus_is_described(write_corpus):
    layout = read_layout(write_corpus(documents=60))
    check_index(layout)
    assert layout.documents == layout.sequences == 60
    assert layout.tokens == layout.sequence_lengths().sum() == len(layout.token_ids())
    assert layout.dtype == np.uint16


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_a_missing_file_is_named(write_corpus, suffix):
    prefix = write_corpus()
    Path(prefix + suffix).unlink()
    with pytest.raises(UserError, match=f"corpus{suffix} does not exist"):
        read_layout(prefix)


@pytest.mark.parametrize(("suffix", "said"), [(".bin", "truncated"), (".idx", "truncated")])
@pytest.mark.parametrize("cut", [1, 100])
def test_a_truncated_file_is_named(write_corpus, suffix, said, cut):
    prefix = write_corpus()
    path = Path(prefix + suffix)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UserError, match=f"corpus{suffix} has .*{said}"):
        read_layout(prefix)


def test_a_bin_longer_than_its_index_is_named(write_corpus):
    prefix = write_corpus()
    with Path(prefix + ".bin").open("ab") as file:
        file.write(b"\0\0")
    with pytest.raises(UserError, match="longer than its index"):
        read_layout(prefix)


@pytest.mark.parametrize(
    ("offset", "new", "said"),
    [(0, b"PK", "does not begin"), (9, b"\2", "version 2"), (17, b"\7", "dtype code 7")],
)
def test_a_strange_header_is_named(write_corpus, offset, new, said):
    prefix = write_corpus()
    change(Path(prefix + ".idx"), offset, new)
    with pytest.raises(UserError, match=said):
        read_layout(prefix)


def test_an_idx_of_a_few_bytes_is_named(write_corpus):
    prefix = write_corpus()
    Path(prefix + ".idx").write_bytes(b"MMI")
    with pytest.raises(UserError, match="header"):
        read_layout(prefix)


def test_a_pointer_past_the_end_is_named(write_corpus):
    prefix = write_corpus(documents=60)
    change(Path(prefix + ".idx"), 34 + 4 * 60 + 8 * 7, (10**9).to_bytes(8, "little"))
    with pytest.raises(UserError, match="sequence 7 has .* at byte 1000000000"):
        check_index(read_layout(prefix))


def test_falling_document_bounds_are_named(write_corpus):
    prefix = write_corpus(documents=60)
    change(Path(prefix + ".idx"), 34 + 12 * 60 + 8 * 7, (0).to_bytes(8, "little"))
    with pytest.raises(UserError, match="document 6 ends before it begins"):
        check_index(read_layout(prefix))


def test_document_bounds_that_leave_out_sequences_are_named(write_corpus):
    prefix = write_corpus(documents=60)
    change(Path(prefix + ".idx"), 34 + 20 * 60, (59).to_bytes(8, "little"))
    with pytest.raises(UserError, match="run over"):
        read_layout(prefix)


def test_the_fingerprint_follows_the_content_not_the_path(write_corpus):
    one, copy, other = (
        fingerprint(read_layout(write_corpus(name, documents=9000, seed=seed)))
        for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    )
    assert one == copy != other


def test_the_fingerprint_sees_every_length_up_to_a_mebibyte_of_them(write_corpus):
    prefix = write_corpus(documents=9000)
    before, lengths = fingerprint(read_layout(prefix)), read_layout(prefix).sequence_lengths()
    at = next(i for i in range(4000, 8000) if lengths[i] != lengths[i + 1])
    swapped = lengths[at : at + 2][::-1].tobytes()
    change(Path(prefix + ".idx"), 34 + 4 * at, swapped)
    assert fingerprint(read_layout(prefix)) != before


@pytest.mark.parametrize("piece", [1, 7, 60])
def test_faults_are_found_at_the_borders_of_pieces(write_corpus, monkeypatch, piece):
    monkeypatch.setattr(layout_module, "_PIECE", piece)
    prefix = write_corpus(documents=60)
    check_index(read_layout(prefix))
    for sequence in (0, 7, 14, 58, 59):
        content = Path(prefix + ".idx").read_bytes()
        change(Path(prefix + ".idx"), 34 + 4 * 60 + 8 * sequence, (10**9).to_bytes(8, "little"))
        if sequence != 59:  # that one is told by the header already
            with pytest.raises(UserError, match=f"sequence {sequence} has .* at byte 1000000000"):
                check_index(read_layout(prefix))
        Path(prefix + ".idx").write_bytes(content)
