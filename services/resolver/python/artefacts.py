"""Which of the files that a lock lists for a release is the one that was installed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from packaging.tags import Tag, compatible_tags, cpython_tags, parse_tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.resolver.python.inventory import InstalledPackage

    Build = tuple[()] | tuple[int, str]

WHEEL_SUFFIX = ".whl"
# A file name longer than this is none; the tags that it may stand for are bounded, too.
MAX_NAME = 255
MAX_TAGS = 1_000
# By which key locks tell the name of a file; of an address or a path it is the end.
NAME_KEYS = ("name", "file", "url", "path")
# What can stand in a line of its own, and nothing else.
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,254}")
BUILD_TAG = re.compile(r"(?P<number>\d{1,100})(?P<rest>.*)", re.DOTALL)
LINUX = ("linux_", "manylinux")

PARTS_OF_TAG = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedFile:
    """One file of a release, as a lock lists it: a wheel or, if its name is none of a wheel, the source."""

    name: str
    hashes: tuple[str, ...]

    @property
    def is_wheel(self) -> bool:
        """Whether it is installed as it is, and not built."""
        return self.name.endswith(WHEEL_SUFFIX)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wheel:
    """A wheel's file, and what its name says; no tags if nobody can read the name."""

    file: LockedFile
    tags: frozenset[Tag]
    build: Build


def file_name(file: Mapping[str, Any]) -> str:
    """The name of a file that a lock lists; empty if the lock does not say it."""
    found = next((value for key in NAME_KEYS if isinstance(value := file.get(key), str) and value), "")
    return unquote(found.partition("#")[0].partition("?")[0].rpartition("/")[2])


def listed_files(tables: Iterable[object]) -> tuple[LockedFile, ...]:
    """The files of a package in a lock that gives each a name and a hash; none if a name is missing or odd."""
    found = [(file_name(file), str(file["hash"])) for file in tables if isinstance(file, dict) and "hash" in file]
    return plain_files(LockedFile(name=name, hashes=(value,)) for name, value in found)


def plain_files(files: Iterable[LockedFile]) -> tuple[LockedFile, ...]:
    """The files, if all have names of the usual kind; a part of them would tell something wrong."""
    found = tuple(files)
    return found if all(PLAIN_NAME.fullmatch(file.name) for file in found) else ()


def fitting_files(files: Iterable[LockedFile], python: str) -> tuple[LockedFile, ...]:
    """The files without the wheels that no machine with this Python on Linux can install."""
    return tuple(file for file in files if not file.is_wheel or _may_fit(_wheel(file), "", python))


def installed_file(files: Sequence[LockedFile], package: InstalledPackage, python: str) -> LockedFile | None:
    """The file that was installed; None if that cannot be told.

    It is the wheel whose name says what the installed metadata says. An installer builds the source only where it finds
    no wheel that fits, so the source is meant only if none of the wheels does.
    """
    wheels = [wheel for file in files if file.is_wheel if _may_fit(wheel := _wheel(file), package.machine, python)]
    tags = _tags(package.tags)
    matching = [wheel for wheel in wheels if tags and wheel.tags == tags]
    if len(matching) > 1:
        matching = [wheel for wheel in matching if wheel.build == _build(package.build)]
    if matching:
        return matching[0].file if len(matching) == 1 else None
    sources = [file for file in files if not file.is_wheel]
    return sources[0] if len(sources) == 1 and not wheels else None


def _wheel(file: LockedFile) -> _Wheel:
    unread = _Wheel(file=file, tags=frozenset(), build=())
    parts = file.name.removesuffix(WHEEL_SUFFIX).rsplit("-", 3)[1:]
    if len(file.name) > MAX_NAME or not _is_bounded(parts):
        return unread
    try:
        _, _, build, tags = parse_wheel_filename(file.name)
    except InvalidWheelFilename:
        return unread
    return _Wheel(file=file, tags=tags, build=build)


def _tags(lines: Iterable[str]) -> frozenset[Tag]:
    """The tags of a WHEEL; none if a line is no tag, for then nothing is known."""
    found: set[Tag] = set()
    for line in lines:
        parts = line.split("-")
        if len(parts) != PARTS_OF_TAG or not _is_bounded(parts):
            return frozenset()
        found |= parse_tag(line)
    return frozenset(found)


def _is_bounded(parts: Iterable[str]) -> bool:
    """Whether compressed parts stand for a number of tags that a wheel may have."""
    return prod(part.count(".") + 1 for part in parts) <= MAX_TAGS


def _build(text: str) -> Build:
    found = BUILD_TAG.fullmatch(text)
    return (int(found["number"]), found["rest"]) if found else ()


def _may_fit(wheel: _Wheel, machine: str, python: str) -> bool:
    """Whether an installer could have taken a wheel. What nobody can read might fit."""
    major, minor = (int(part) for part in python.split(".")[:2])
    platforms = [
        tag.platform for tag in wheel.tags if tag.platform.startswith(LINUX) and tag.platform.endswith(machine)
    ]
    short = f"cp{major}{minor}"
    fitting = {
        *cpython_tags((major, minor), abis=[short], platforms=platforms),
        *compatible_tags((major, minor), interpreter=short, platforms=platforms),
    }
    return not wheel.tags or not wheel.tags.isdisjoint(fitting)
