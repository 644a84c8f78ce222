import gzip
import io
import tarfile
import zipfile

import pytest
import zstandard

from megatron_biollm.corpus.open import BROKEN, open_streams, plain_name
from megatron_biollm.corpus.report import FileReport

TEXT = b"some text\n" * 100_000


def contents(path, report=None):
    streams = open_streams(path, report or FileReport(str(path)))
    return {name: stream.read() for name, stream in streams}


def tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize(
    ("ending", "pack"),
    [("", bytes), (".gz", gzip.compress), (".zst", zstandard.ZstdCompressor().compress)],
)
def test_a_packed_file_is_unpacked_and_loses_its_ending(tmp_path, ending, pack):
    (tmp_path / f"a.txt{ending}").write_bytes(pack(TEXT))
    assert contents(tmp_path / f"a.txt{ending}") == {"a.txt": TEXT}


def test_frames_of_zstd_follow_one_another(tmp_path):
    compressor = zstandard.ZstdCompressor()
    packed = compressor.compress(b"one") + compressor.compress(b"two")
    (tmp_path / "a.zst").write_bytes(packed)
    assert contents(tmp_path / "a.zst") == {"a": b"onetwo"}


@pytest.mark.parametrize(
    ("ending", "pack"), [(".gz", gzip.compress), (".zst", zstandard.ZstdCompressor().compress)]
)
def test_a_cut_file_is_broken_and_not_merely_short(tmp_path, ending, pack):
    (tmp_path / f"a{ending}").write_bytes(pack(TEXT)[:-20])
    with pytest.raises(BROKEN):
        contents(tmp_path / f"a{ending}")


def test_members_of_archives_come_one_by_one_and_unpacked(tmp_path):
    members = {"x/a.xml": b"<a/>", "x/b.xml.gz": gzip.compress(b"<b/>")}
    tar(tmp_path / "a.tar.gz", members)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    expected = {"x/a.xml": b"<a/>", "x/b.xml": b"<b/>"}
    assert contents(tmp_path / "a.tar.gz") == contents(tmp_path / "a.zip") == expected


@pytest.mark.parametrize("name", ["../evil.xml", "/etc/passwd", "a/../../b", "C:\\x", "..\\x"])
def test_a_member_that_leads_out_of_the_archive_is_refused_and_named(tmp_path, name):
    tar(tmp_path / "a.tar.gz", {name: b"<a/>", "good.xml": b"<b/>"})
    report = FileReport("a")
    assert contents(tmp_path / "a.tar.gz", report) == {"good.xml": b"<b/>"}
    assert report.faults[0].position == f"member {name}"
    assert "leads out of the archive" in report.faults[0].reason


def test_links_are_refused_and_named(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    report = FileReport("a")
    assert contents(tmp_path / "a.tar", report) == {}
    assert report.fault_count == 1


def test_a_plain_name_keeps_what_is_not_a_compression():
    assert plain_name("a.tar.gz") == "a.tar" and plain_name("b.xml") == "b.xml"
