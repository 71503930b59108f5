"""Prints what is installed in an environment, from the packages' own metadata, and whether the files are all there.

Usage: inventory.py ENV_LIB

One JSON object: {"format": 1, "ecosystem": "python", "machine" (as in `uname -m`), "packages": [...]}, a package being
{"name", "version", "license_expression", "license", "requires_python" (text or null), "classifiers" (those of the
licence), "requires_dist", "top_level" (the names it can be imported by), "tags", "build" (of WHEEL; text or null),
"record_sha256" (of RECORD, or null), "file_count", "missing", "modified" (paths relative to ENV_LIB), "verified"
("hashes" or "sizes")}.
Files are compared with RECORD by hash in a small environment, by size alone in a big one.
What is read was written by strangers: every text and list has a limit, and a broken RECORD is a package that
verifies nothing, with its files in "modified".
"""

# ruff: noqa: PTH116, PTH118, PTH119, PTH123 -- an environment has tens of thousands of files, and pathlib doubles the time
import base64
import binascii
import csv
import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from email.message import Message
from email.parser import HeaderParser
from email.policy import compat32
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

METADATA_LIMIT_BYTES = 1024 * 1024
RECORD_LIMIT_BYTES = 32 * 1024 * 1024
TEXT_LIMIT = 64 * 1024
LIST_LIMIT = 2_000
PACKAGE_LIMIT = 10_000
# Hashing runs at about 500 MB a second; beyond this an install would wait for it.
HASHED_LIMIT_BYTES = 256 * 1024 * 1024
# RECORD cannot contain its own hash, and installers write these after it.
UNHASHED_NAMES = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"})


@dataclass(frozen=True, kw_only=True)
class RecordedFile:
    """One line of RECORD: a path relative to the library, a hash as `sha256=…` or empty, a size in bytes or None."""

    path: str
    digest: str
    size: int | None


@dataclass(frozen=True, kw_only=True)
class Package:
    """One row of the inventory: see the top of this file."""

    name: str
    version: str
    license_expression: str | None
    license: str | None
    requires_python: str | None
    classifiers: list[str]
    requires_dist: list[str]
    top_level: list[str]
    tags: list[str]
    build: str | None
    record_sha256: str | None
    file_count: int
    verified: str
    missing: list[str] = field(default_factory=list)
    modified: list[str] = field(default_factory=list)


def read_bounded(path: Path, limit: int) -> bytes | None:
    """A regular file's bytes up to a limit, or None if there is none or it is bigger."""
    try:
        if not path.is_file() or path.stat().st_size > limit:
            return None
        return path.read_bytes()
    except OSError:
        return None


def text(value: object) -> str:
    """A header as text that JSON can carry, cut to the limit."""
    return str(value).encode("utf-8", "replace").decode("utf-8")[:TEXT_LIMIT]


def optional(metadata: Message, header: str) -> str | None:
    """A header that may be absent. `UNKNOWN` is what old tools wrote for that."""
    value = metadata.get(header)
    return None if value is None or str(value).strip() in {"", "UNKNOWN"} else text(value).strip()


def many(metadata: Message, header: str) -> list[str]:
    """All headers of one name, up to the limit."""
    return [text(value).strip() for value in (metadata.get_all(header) or [])[:LIST_LIMIT]]


def parse_record(content: bytes) -> list[RecordedFile]:
    """The lines of a RECORD.

    Raises ValueError if it is not what a RECORD looks like.
    """
    try:
        rows = [row for row in csv.reader(content.decode("utf-8").splitlines()) if row]
    except csv.Error as error:
        raise ValueError(str(error)) from error
    files = []
    for path, digest, size in rows:
        if size and not size.isdecimal():
            raise ValueError(f"not a size: {size[:40]}")
        files.append(RecordedFile(path=path, digest=digest, size=int(size) if size else None))
    return files


def inside(library: str, path: str) -> str | None:
    """The file that a RECORD line names, or None if the line leads out of the library."""
    joined = os.path.normpath(os.path.join(library, path))
    return joined if joined.startswith(f"{library}/") and "\0" not in path else None


def has_digest(path: str, digest: str) -> bool:
    """Whether a file has the hash that RECORD gives it. Weak and unknown algorithms count as no."""
    algorithm, _, expected = digest.partition("=")
    if algorithm not in {"sha256", "sha384", "sha512"}:
        return False
    try:
        with open(path, "rb", buffering=0) as file:
            found = hashlib.file_digest(file, algorithm).digest()
        return found == base64.urlsafe_b64decode(expected + "=" * (-len(expected) % 4))
    except (OSError, binascii.Error, ValueError):
        return False


def is_as_recorded(path: str, file: RecordedFile, status: os.stat_result, *, hashes: bool) -> bool:
    """Whether a file is what RECORD says. A device never is, nor a hash without a size to bound its cost."""
    if not stat.S_ISREG(status.st_mode):
        return False
    if os.path.basename(path) in UNHASHED_NAMES:
        return True
    if file.size is None:
        return not file.digest
    return file.size == status.st_size and not (hashes and file.digest and not has_digest(path, file.digest))


def verify(library: str, files: list[RecordedFile], *, hashes: bool) -> tuple[list[str], list[str]]:
    """The recorded files that are not there, and those that are not as recorded."""
    missing: list[str] = []
    modified: list[str] = []
    for file in files:
        path = inside(library, file.path)
        if path is None:
            modified.append(file.path)
            continue
        try:
            status = os.stat(path)
        except OSError:
            missing.append(file.path)
            continue
        if not is_as_recorded(path, file, status, hashes=hashes):
            modified.append(file.path)
    return missing[:LIST_LIMIT], modified[:LIST_LIMIT]


def import_names(files: list[RecordedFile]) -> list[str]:
    """The top-level names that a package's files can be imported by."""
    names = set()
    for file in files:
        first, _, rest = file.path.partition("/")
        if rest:
            if (
                first.isidentifier()
                and first not in {"__pycache__", "bin"}
                and rest.endswith((".py", *EXTENSION_SUFFIXES))
            ):
                names.add(first)
        else:
            suffix = next((suffix for suffix in (".py", *EXTENSION_SUFFIXES) if first.endswith(suffix)), None)
            if suffix and first.removesuffix(suffix).isidentifier():
                names.add(first.removesuffix(suffix))
    return sorted(names)[:LIST_LIMIT]


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A package's directory of metadata, read and not yet verified. `files` is None if RECORD is absent or broken."""

    directory: Path
    metadata: Message
    wheel: Message
    record: bytes | None
    files: list[RecordedFile] | None


def read_installed(directory: Path) -> Installed:
    """Reads METADATA, WHEEL and RECORD. Headers that are too big, or missing, give empty ones."""
    record = read_bounded(directory / "RECORD", RECORD_LIMIT_BYTES)
    try:
        files = None if record is None else parse_record(record)
    except ValueError:
        files = None
    metadata, wheel = (read_headers(directory / name) for name in ("METADATA", "WHEEL"))
    return Installed(directory=directory, metadata=metadata, wheel=wheel, record=record, files=files)


def read_headers(path: Path) -> Message:
    """The headers of a file of metadata; empty if it is missing or too big."""
    content = read_bounded(path, METADATA_LIMIT_BYTES) or b""
    return HeaderParser(policy=compat32).parsestr(content.decode("utf-8", "replace"))


def describe(library: str, installed: Installed, *, hashes: bool) -> Package:
    """Verifies one package and says what it is; the directory's name stands in for metadata that says nothing."""
    directory, metadata, files = installed.directory, installed.metadata, installed.files
    fallback_name, _, fallback_version = directory.name.removesuffix(".dist-info").partition("-")
    missing, modified = verify(library, files or [], hashes=hashes)
    if files is None:
        record = f"{directory.name}/RECORD"
        missing, modified = ([record], []) if installed.record is None else ([], [record])
    return Package(
        name=optional(metadata, "Name") or text(fallback_name),
        version=optional(metadata, "Version") or text(fallback_version),
        license_expression=optional(metadata, "License-Expression"),
        license=optional(metadata, "License"),
        requires_python=optional(metadata, "Requires-Python"),
        classifiers=[value for value in many(metadata, "Classifier") if value.startswith("License ::")],
        requires_dist=many(metadata, "Requires-Dist"),
        top_level=import_names(files or []),
        tags=many(installed.wheel, "Tag"),
        build=optional(installed.wheel, "Build"),
        record_sha256=None if installed.record is None else hashlib.sha256(installed.record).hexdigest(),
        file_count=len(files or []),
        verified="hashes" if hashes else "sizes",
        missing=missing,
        modified=modified,
    )


def metadata_directories(library: Path) -> Iterator[Path]:
    """The `.dist-info` directories of a library, in order.

    Raises ValueError if there are more packages than anybody installs.
    """
    found = sorted(path for path in library.iterdir() if path.name.endswith(".dist-info") and path.is_dir())
    if len(found) > PACKAGE_LIMIT:
        raise ValueError(f"{len(found)} packages, and {PACKAGE_LIMIT} are the limit")
    return iter(found)


def inventory(library: Path) -> dict[str, object]:
    """The whole inventory of a library directory."""
    installed = [read_installed(directory) for directory in metadata_directories(library)]
    total = sum(file.size or 0 for package in installed for file in package.files or [])
    hashes = total < HASHED_LIMIT_BYTES
    packages = [asdict(describe(str(library), package, hashes=hashes)) for package in installed]
    return {"format": 1, "ecosystem": "python", "machine": os.uname().machine, "packages": packages}


def main(arguments: list[str]) -> int:
    """Answers with an exit code: 0 printed, 1 the environment cannot be read, 2 wrong arguments."""
    if len(arguments) != 1:
        sys.stderr.write("usage: inventory.py ENV_LIB\n")
        return 2
    try:
        sys.stdout.write(json.dumps(inventory(Path(arguments[0]).resolve())) + "\n")
    except (OSError, ValueError) as error:
        sys.stderr.write(f"inventory: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
