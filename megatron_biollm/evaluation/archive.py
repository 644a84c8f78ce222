"""Archives of benchmarks read without unpacking them, and XML that may come from anyone.

Nothing is written, so a member cannot leave the archive; one that tries to is still refused, for
whoever packed it meant harm or made a mistake.
"""

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lxml import etree

from megatron_biollm.config import UserError

_ZIP = b"PK"
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)
# No benchmark is nearly as large; an archive that is was made to fill the memory.
_MOST_BYTES = 2 << 30


def read_members(path: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files with these suffixes, by name, in a .zip, a .tar or a folder.

    Raises:
        UserError: it is damaged or none of these, or a member leads out of it or is a link, or the
            whole would be larger than any benchmark.
    """
    try:
        if path.is_dir():
            yield from _folder_members(path, suffixes)
        elif _begins_with(path, _ZIP):
            yield from _zip_members(path, suffixes)
        else:
            yield from _tar_members(path, suffixes)
    except _BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} is damaged or no archive ({reason}): download it again, whole"
        ) from error


def _begins_with(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(mark)) == mark


def _folder_members(path: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    for file in sorted(path.rglob("*")):
        if file.name.endswith(suffixes) and file.is_file():
            yield file.relative_to(path).as_posix(), file.read_bytes()


def _zip_members(path: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        _check([info.filename for info in infos], sum(info.file_size for info in infos), path)
        for info in sorted(infos, key=lambda one: one.filename):
            if info.filename.endswith(suffixes) and not info.is_dir():
                yield info.filename, archive.read(info)


def _tar_members(path: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        infos = archive.getmembers()
        _check([info.name for info in infos], sum(info.size for info in infos), path)
        for info in sorted(infos, key=lambda one: one.name):
            if not (info.isfile() or info.isdir()):
                raise UserError(
                    f"{path} has the link or device {info.name!r}; no benchmark has one"
                )
            if info.name.endswith(suffixes) and info.isfile():
                yield info.name, archive.extractfile(info).read()


def _check(names: list[str], size: int, path: Path) -> None:
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
            raise UserError(
                f"{path} has the member {name!r}, which leads out of the archive; "
                f"do not trust it: download the official file"
            )
    if size > _MOST_BYTES:
        raise UserError(f"{path} would unpack to {size:,} bytes, more than any benchmark has")


def decode(data: bytes, where: str) -> str:
    """A member's text.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 ({error}): download it again") from error


def parse_xml(data: bytes, where: str) -> etree._Element:
    """The root of an XML text. Nothing outside it is loaded, and no entity is expanded.

    Raises:
        UserError: it is not well-formed, as when it was cut off, or it declares entities.
    """
    # Seen before it is parsed: entities in attributes would be expanded whatever is set.
    if b"<!ENTITY" in data.replace(b"\0", b""):
        raise UserError(f"{where} declares XML entities; no benchmark does: do not trust the file")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise UserError(f"{where} is no whole XML ({error}): download it again") from error
