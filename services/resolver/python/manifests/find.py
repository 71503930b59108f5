"""Which manifest counts for a program, and what it declares.

The block in the program itself wins over all files, the file beside the program over one further up. In one directory a
lock wins over what it was made from; among manifests, requirements.txt wins over pyproject.toml: it is what people
install from, and often the other's lock.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.model import Notice, NoticeKind
from services.resolver.python.locks.formats import format_of_name
from services.resolver.python.manifests import readers, script
from services.resolver.python.manifests.locked import given_lock, given_manifest, locked_manifest
from services.resolver.python.manifests.manifest import Manifest
from services.resolver.python.manifests.settings import SETTING_FILES, setting_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from services.resolver.model import Lockfile
    from services.resolver.python.manifests.request import Request

INCLUDABLE = re.compile(r"(require|constraint|reqs?\b)", re.IGNORECASE)
INCLUDABLE_DIRECTORIES = frozenset({"requirements", "reqs"})
PYLOCK = "pylock.toml"
HASH_OPTION = b"--hash"


def is_includable(path: str) -> bool:
    """Whether a file is named like one that a requirements file includes."""
    directory, _, name = path.rpartition("/")
    if not name.endswith((".txt", ".in")):
        return False
    return bool(INCLUDABLE.search(name)) or directory.rpartition("/")[2] in INCLUDABLE_DIRECTORIES


def is_manifest(path: str) -> bool:
    """Whether a file may say what is to be installed, or where from."""
    name = path.rpartition("/")[2]
    return name in readers.READERS or name in SETTING_FILES or format_of_name(name) is not None or is_includable(path)


def find_manifest(
    program: str, directories: Sequence[str], request: Request
) -> tuple[Manifest | None, tuple[Notice, ...]]:
    """The manifest that counts for a program in the given directories, and notices of files that were passed over.

    Raises ManifestError.
    """
    notices = setting_files(directories, request)
    manifest = _from_block(program, request, notices)
    if manifest is not None:
        present = [path for path in _present(directories[:1], request) if path not in manifest.files]
        notices += [readers.passed_over(path, f"the block in {program} is used") for path in present]
        return manifest, tuple(notices)
    for directory in directories:
        manifest = _in_directory(directory, request, notices)
        if manifest is not None:
            return manifest, tuple(notices)
    wanted = (*request.extras, *request.groups)
    if wanted:
        reason = f"{', '.join(wanted)[:200]} was asked for, and no manifest declares any extra or group"
        raise ManifestError(path=readers.PYPROJECT, reason=reason)
    return None, tuple(notices)


def decisive_manifest(
    program: str, directories: Sequence[str], request: Request, given: Lockfile | None, imported: Iterable[str]
) -> tuple[Manifest | None, tuple[Notice, ...]]:
    """The manifest that counts; a lock from outside the workspace wins over all that lies there.

    `imported` names the packages that the program imports.
    Raises ManifestError: for the workspace's own files only if they decide.
    """
    lock = given_lock(given, request) if given else None
    if given is None or lock is None:
        return find_manifest(program, directories, request)
    try:
        source, notices = find_manifest(program, directories, request)
    except ManifestError as error:
        detail = f"{error.reason}; {given.name} is used"
        kind = NoticeKind.MANIFEST_IGNORED
        source, notices = (
            None,
            (Notice(kind=kind, path=error.path, line=error.line, subject=error.path, detail=detail),),
        )
    return given_manifest(lock, given.content, source, imported, request), notices


def _from_block(program: str, request: Request, notices: list[Notice]) -> Manifest | None:
    """What the program's own block declares, by the lock beside it if there is one."""
    block, offset, unclosed = script.find_block(program, request.files.get(program, b""))
    if unclosed is not None:
        notices.append(unclosed)
    project = script.read_block(program, block, offset, request) if block else None
    if project is None:
        return None
    manifest = replace(readers.of_project(project, request), files={program: block.encode()})
    lock = f"{program}.lock"
    return locked_manifest(lock, manifest, request) if lock in request.files else manifest


def _in_directory(directory: str, request: Request, notices: list[Notice]) -> Manifest | None:
    """The directory's manifest, or None; what it passes over is added to the notices."""
    prefix = f"{directory}/" if directory else ""
    lock = _lock_of(prefix, request)
    manifest = None
    if lock:
        found = format_of_name(lock)
        names = [name for name in (found.manifests if found else ()) if prefix + name in request.files]
        source = next((item for name in names if (item := readers.read(prefix + name, request, notices))), None)
        manifest = locked_manifest(lock, source, request)
    for name in readers.reading_order(request):
        if manifest is None and prefix + name in request.files:
            manifest = readers.read(prefix + name, request, notices)
    if manifest is None:
        return None
    told = {notice.path for notice in notices} | set(manifest.files)
    used = lock or next(iter(manifest.files))
    notices += [
        readers.passed_over(path, f"{used} is used")
        for path in _present([directory], request)
        if path not in told and readers.mentions_dependencies(path, request)
    ]
    return manifest


def _lock_of(prefix: str, request: Request) -> str:
    """The lock of a directory that counts; hashed requirements are one if what they were made from lies beside them.

    Without that they are a manifest that is its own lock.
    """
    named = sorted(
        path
        for path in request.files
        if path.startswith(f"{prefix}pylock.") and "/" not in path.removeprefix(prefix) and path.endswith(".toml")
    )
    if prefix + PYLOCK in named or len(named) == 1:
        return prefix + PYLOCK if prefix + PYLOCK in named else named[0]
    requirements = prefix + readers.REQUIREMENTS_FILE
    if HASH_OPTION in request.files.get(requirements, b"") and not (request.extras or request.groups):
        return requirements if prefix + readers.REQUIREMENTS_SOURCE in request.files else ""
    names = ("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "requirements.lock")
    return next((prefix + name for name in names if prefix + name in request.files), "")


def _present(directories: Iterable[str], request: Request) -> list[str]:
    """The manifests and locks that lie in these directories."""
    found: list[str] = []
    for directory in directories:
        prefix = f"{directory}/" if directory else ""
        names = [name for name in readers.READERS if prefix + name in request.files]
        locks = [
            path
            for path in request.files
            if path.startswith(prefix) and "/" not in path.removeprefix(prefix) and _is_named_lock(path)
        ]
        found += [prefix + name for name in names] + sorted(locks)
    return found


def _is_named_lock(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.endswith((".lock", ".toml")) and format_of_name(name) is not None and not name.endswith(".py.lock")
