"""What an archive holds (ustar, pax, GNU's long names), checked to the last header before anything is written."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .paths import CallError, checked

if TYPE_CHECKING:
    from collections.abc import Iterator

MAXIMUM_MEMBERS = 20_000
MAXIMUM_DEPTH = 64
# Headers that only say more about the member that follows count too.
_MAXIMUM_HEADERS = 4 * MAXIMUM_MEMBERS
_MAXIMUM_EXTENSION_BYTES = 64 << 10
_BLOCK = tarfile.BLOCKSIZE
_FILES = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_REFUSED = {
    tarfile.LNKTYPE: "a hard link; archive it as a file (tar --hard-dereference)",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a FIFO",
    tarfile.GNUTYPE_SPARSE: "sparse; archive it without holes",
}


@dataclass(frozen=True, kw_only=True)
class Member:
    """One entry: `kind` is file, directory or link; a file's bytes lie at `offset` of the archive."""

    path: str
    kind: str
    offset: int = 0
    size: int = 0
    executable: bool = False
    target: str = ""


def read_members(descriptor: int, size: int) -> list[Member]:
    """All members of an archive of so many bytes, by path.

    Raises:
        CallError: `invalid_tree` with the member that breaks a rule, `invalid_path`, or `too_large`.
    """
    members: dict[str, Member] = {}
    for member in _Reader(descriptor, size).members():
        if member.path in members:
            raise _invalid(f"{member.path}: is there twice")
        members[member.path] = member
        if len(members) > MAXIMUM_MEMBERS:
            raise CallError("too_large", f"more than {MAXIMUM_MEMBERS} members; send the tree in parts")
    for path in members:
        for parent in _parents(path):
            if parent in members and members[parent].kind != "directory":
                raise _invalid(f"{path}: lies below {parent}, which is no directory")
    return sorted(members.values(), key=lambda member: member.path.split("/"))


def is_inside(path: str, target: str) -> bool:
    """Whether a link at `path` of a tree stays in it, whatever else is a link there: `..` may come first alone."""
    parts = target.split("/")
    ups = 0
    while ups < len(parts) and parts[ups] == "..":
        ups += 1
    rest = parts[ups:]
    return bool(target) and not target.startswith("/") and ".." not in rest and ups <= path.count("/")


class _Reader:
    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._size = size
        self._position = 0
        self._headers = 0

    def members(self) -> Iterator[Member]:
        extended: dict[str, str] = {}
        while (header := self._header()) is not None:
            if header.type in {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}:
                records = _pax_records(self._extension(header.size))
                # What is said once for all members is never what they are.
                extended |= {} if header.type == tarfile.XGLTYPE else records
            elif header.type in {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}:
                key = "path" if header.type == tarfile.GNUTYPE_LONGNAME else "linkpath"
                extended[key] = _text(self._extension(header.size).partition(b"\0")[0])
            else:
                member = self._member(header, extended)
                extended = {}
                if member is not None:
                    yield member

    def _header(self) -> tarfile.TarInfo | None:
        self._headers += 1
        if self._headers > _MAXIMUM_HEADERS:
            raise CallError("too_large", f"more than {_MAXIMUM_HEADERS} headers; send the tree in parts")
        block = self._read(_BLOCK)
        if not any(block):
            return None
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise _invalid(f"no header of tar at byte {self._position - _BLOCK}: {error}") from error

    def _member(self, header: tarfile.TarInfo, extended: dict[str, str]) -> Member | None:
        name = extended.get("path", header.name)
        if header.type in _REFUSED:
            raise _invalid(f"{name[:200]}: is {_REFUSED[header.type]}; only files, directories and links are taken")
        if any(key.startswith("GNU.sparse") for key in extended):
            raise _invalid(f"{name[:200]}: is {_REFUSED[tarfile.GNUTYPE_SPARSE]}")
        path = _member_path(name)
        if header.type == tarfile.DIRTYPE:
            return Member(path=path, kind="directory") if path else None
        if header.type == tarfile.SYMTYPE:
            return _link(path, extended.get("linkpath", header.linkname))
        if header.type not in _FILES:
            raise _invalid(f"{name[:200]}: is of the unknown type {header.type!r}")
        size = _size(extended["size"]) if "size" in extended else header.size
        offset = self._position
        self._skip(size)
        return Member(path=checked(path), kind="file", offset=offset, size=size, executable=bool(header.mode & 0o100))

    def _extension(self, size: int) -> bytes:
        if not 0 <= size <= _MAXIMUM_EXTENSION_BYTES:
            raise _invalid(f"a header of {size} bytes; {_MAXIMUM_EXTENSION_BYTES} are allowed")
        data = self._read(size)
        self._position += -size % _BLOCK
        return data

    def _skip(self, size: int) -> None:
        if not 0 <= size <= self._size - self._position:
            raise _invalid(f"a member of {size} bytes, of which only {self._size - self._position} are there")
        self._position += size + -size % _BLOCK

    def _read(self, size: int) -> bytes:
        data = os.pread(self._descriptor, size, self._position)
        if len(data) != size:
            raise _invalid("the archive ends without its end; it was cut off")
        self._position += size
        return data


def _invalid(message: str) -> CallError:
    return CallError("invalid_tree", message)


def _member_path(name: str) -> str:
    while name.startswith("./"):
        name = name[2:]
    path = name.rstrip("/") if name != "/" else name
    if path in {"", "."}:
        return ""
    if checked(path).count("/") >= MAXIMUM_DEPTH:
        raise _invalid(f"{path[:200]}…: deeper than {MAXIMUM_DEPTH} levels")
    return path


def _link(path: str, target: str) -> Member:
    if not is_inside(checked(path), target) or "\0" in target:
        raise _invalid(f"{path}: a link to {target[:200]!r}; only relative ones that stay in the tree are taken")
    return Member(path=path, kind="link", target=target)


def _size(text: str) -> int:
    if not text.isdecimal() or len(text) > 20:  # noqa: PLR2004 - of digits, in 64 bits
        raise _invalid("a size that is no number")
    return int(text)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _invalid("a name that is not UTF-8") from error


def _pax_records(data: bytes) -> dict[str, str]:
    records: dict[str, str] = {}
    position = 0
    while position < len(data):
        digits = data[position : position + 8].partition(b" ")[0]
        end = position + int(digits) if digits.isdigit() else 0
        record = data[position + len(digits) + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(data) or not equals or not record.endswith(b"\n"):
            raise _invalid("a pax header that is none")
        records[_text(key)] = _text(value)
        position = end
    return records


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")
    return ("/".join(parts[:end]) for end in range(1, len(parts)))
