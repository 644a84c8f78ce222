"""Archives and XML from anyone: read whole, or refused with a reason."""

import io
import tarfile
import zipfile

import pytest

from megatron_biollm.config import UserError
from megatron_biollm.evaluation import archive
from megatron_biollm.evaluation.archive import decode, parse_xml, read_members


def zipped(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def tarred(path, members, kind=tarfile.REGTYPE):
    with tarfile.open(path, "w:gz") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, "/etc/passwd"
            file.addfile(info, io.BytesIO(data))
    return path


MEMBERS = {"b/2.txt": b"two", "a/1.txt": b"one", "a/notes.md": b"no"}


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_members_come_by_name_and_suffix(pack, tmp_path):
    path = pack(tmp_path / "all", MEMBERS)
    assert list(read_members(path, (".txt",))) == [("a/1.txt", b"one"), ("b/2.txt", b"two")]


def test_a_folder_is_read_as_an_archive_of_it(tmp_path):
    for name, data in MEMBERS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert [name for name, _ in read_members(tmp_path, (".txt",))] == ["a/1.txt", "b/2.txt"]


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "c:/e.txt"])
def test_a_member_that_leads_outside_is_refused(pack, name, tmp_path):
    path = pack(tmp_path / "all", {"fine.txt": b"", name: b"evil"})
    with pytest.raises(UserError, match="leads out of the archive"):
        list(read_members(path, (".txt",)))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_or_a_device_is_refused(kind, tmp_path):
    path = tarred(tmp_path / "all", {"link.txt": b""}, kind)
    with pytest.raises(UserError, match="link or device"):
        list(read_members(path, (".txt",)))


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_half_an_archive_is_refused(pack, kept, tmp_path):
    data = pack(tmp_path / "all", {f"{at}.txt": bytes(range(256)) * 40 for at in range(30)})
    data.write_bytes(data.read_bytes()[: int(kept * data.stat().st_size)])
    with pytest.raises(UserError, match=r"damaged or no archive .*download it again"):
        list(read_members(data, (".txt",)))


def test_a_member_with_a_changed_letter_is_refused(tmp_path):
    path = zipped(tmp_path / "all.zip", {"one.txt": b"content of one"})
    path.write_bytes(path.read_bytes().replace(b"content", b"contend"))
    with pytest.raises(UserError, match=r"damaged.*CRC"):
        list(read_members(path, (".txt",)))


def test_an_archive_made_to_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_MOST_BYTES", 1000)
    path = zipped(tmp_path / "all.zip", {"one.txt": b"0" * 2000})
    with pytest.raises(UserError, match="more than any benchmark"):
        list(read_members(path, (".txt",)))


BOMB = b"""<!DOCTYPE d [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;">]><d x="&b;">&b;</d>"""
OUTSIDE = b"""<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/hostname">]><d>&a;</d>"""


@pytest.mark.parametrize("data", [BOMB, OUTSIDE, BOMB.decode().encode("utf-16")])
def test_xml_that_declares_entities_is_refused(data):
    with pytest.raises(UserError, match="declares XML entities"):
        parse_xml(data, "one.xml")


def test_xml_that_names_a_dtd_is_read_without_it():
    root = parse_xml(b'<!DOCTYPE d SYSTEM "http://nowhere.invalid/d.dtd"><d>a &amp; b</d>', "one")
    assert root.text == "a & b"


def test_half_an_xml_is_refused():
    with pytest.raises(UserError, match=r"one.xml is no whole XML .*download it again"):
        parse_xml(b"<d><e>text</e>", "one.xml")


def test_a_text_that_is_not_utf_8_is_refused():
    with pytest.raises(UserError, match="one is not UTF-8"):
        decode(b"\xff\xfe\xfa", "one")
