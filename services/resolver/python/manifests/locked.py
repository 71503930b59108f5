"""A manifest with its lock, or a lock alone: what is installed then."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from packaging.requirements import Requirement as ParsedRequirement
from packaging.utils import canonicalize_name

from services.resolver.errors import LockError, ManifestError
from services.resolver.lockfile import is_qila_lock, lines_of_packages, read_qila_lock
from services.resolver.model import Notice, NoticeKind
from services.resolver.python.locks.drift import drift
from services.resolver.python.locks.formats import format_of, read_lock
from services.resolver.python.locks.model import Lock, LockRequest, Pin, one_of_each, pin_of
from services.resolver.python.manifests.manifest import Manifest
from services.resolver.python.manifests.project import missing_choice
from services.resolver.python.manifests.requirements_file import Declared
from services.resolver.python.manifests.settings import setting_ignored

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.resolver.model import Lockfile
    from services.resolver.python.manifests.request import Request

ECOSYSTEM = "python"
SOLVED_ANEW = "the manifest is solved anew, with the lock's versions preferred"
LOCK_HOLDS = "the sandbox's lock decides"
NO_HASHES = "it has no hash, so of this lock only the versions are kept, and the hashes are the registry's"
MAX_NOTICES = 20


def locked_manifest(path: str, source: Manifest | None, request: Request) -> Manifest:
    """What a lock in the workspace installs; `source` is the manifest that it was made from, if there is one.

    Where the two disagree the manifest counts, and the lock's versions are preferred. Raises ManifestError.
    """
    roots = source.requirements if source else ()
    lock = read_lock(path, request.files[path], LockRequest(request=request, roots=roots))
    files = {path: request.files[path]}
    notices = [*lock.notices, *_registries(lock, request)]
    if source is None:
        if lock.unusable:
            raise ManifestError(path=path, line=lock.unusable_line, reason=lock.unusable)
        _check_choices(lock, request)
        return Manifest(files=files, requirements=_direct(lock), lock=lock, notices=(*notices, *_without_hashes(lock)))
    drifted = drift(lock, source.requirements, request, SOLVED_ANEW)
    if lock.unusable:
        detail = f"{lock.unusable}; {SOLVED_ANEW}"
        kind = NoticeKind.LOCK_NOT_HONOURED
        drifted.append(Notice(kind=kind, path=path, line=lock.unusable_line, subject=path, detail=detail))
    return replace(
        source,
        files={**source.files, **files},
        notices=(*source.notices, *notices, *drifted, *(() if drifted else _without_hashes(lock))),
        lock=lock,
        drifted=bool(drifted),
    )


def given_lock(lockfile: Lockfile, request: Request) -> Lock | None:
    """The pins of a lock from outside the workspace; None if it is not Python's. Raises ManifestError, which names it.

    Extras and groups are not its business: it says what was installed.
    """
    try:
        if is_qila_lock(lockfile):
            return _qila_lock(lockfile)
    except LockError as error:
        raise ManifestError(path=lockfile.name, line=error.line, reason=error.reason) from error
    if format_of(lockfile.name, lockfile.content) is None:
        return None
    lock = read_lock(lockfile.name, lockfile.content, LockRequest(request=request))
    if lock.unusable:
        raise ManifestError(path=lock.path, line=lock.unusable_line, reason=lock.unusable)
    return lock


def given_manifest(
    lock: Lock, content: bytes, source: Manifest | None, imported: Iterable[str], request: Request
) -> Manifest:
    """What a lock from outside the workspace installs, whatever the manifest says.

    Which packages are direct is the lock's to say, else the manifest's, else the imports', as when the lock was made.
    """
    named = (str(item.specifier.name) for item in source.requirements) if source else imported
    contradicted = drift(lock, source.requirements, request, LOCK_HOLDS) if source else []
    return Manifest(
        files={lock.path: content},
        requirements=_direct(lock, named),
        lock=lock,
        notices=(*lock.notices, *_registries(lock, request), *_without_hashes(lock), *contradicted),
        given=True,
    )


def _qila_lock(lockfile: Lockfile) -> Lock | None:
    """The pins of a qila.lock.json, with what it says about who is direct; None for another ecosystem's."""
    read = read_qila_lock(lockfile.content, lockfile.name)
    if read.ecosystem != ECOSYSTEM:
        return None
    lines = lines_of_packages(lockfile.content)
    pins = [
        pin_of(lockfile.name, lines.get(item.purl, 0), item.name, item.version, item.hashes, direct=item.direct)
        for item in read.packages
    ]
    return Lock(path=lockfile.name, pins=one_of_each(lockfile.name, pins))


def _direct(lock: Lock, named: Iterable[str] = ()) -> tuple[Declared, ...]:
    """What the lock itself asks for: the packages that are direct; if it does not say, those of these names, or all."""
    names = set() if lock.tells_direct else {str(canonicalize_name(name)) for name in named}
    direct = [pin for pin in lock.pins if (pin.name in names if names else pin.direct)] or lock.pins
    return tuple(declared_pin(lock.path, pin) for pin in direct)


def declared_pin(path: str, pin: Pin) -> Declared:
    """A pin as a requirement of exactly its version."""
    specifier = ParsedRequirement(f"{pin.name}=={pin.version}")
    return Declared(specifier=specifier, hashes=pin.hashes, path=path, line=pin.line, files=pin.files)


def all_pins(lock: Lock) -> tuple[Declared, ...]:
    """All that a lock installs, as requirements of exact versions with their hashes."""
    return tuple(declared_pin(lock.path, pin) for pin in lock.pins)


def _check_choices(lock: Lock, request: Request) -> None:
    for kind, names, known in (("extra", request.extras, lock.extras), ("group", request.groups, lock.groups)):
        for name in names:
            if name not in known:
                raise missing_choice(lock.path, kind, name, dict.fromkeys(known))


def _without_hashes(lock: Lock) -> list[Notice]:
    """A notice for each pin without a hash, up to a number."""
    kind = NoticeKind.LOCK_NOT_HONOURED
    bare = [pin for pin in lock.pins if not pin.hashes]
    return [
        Notice(kind=kind, path=lock.path, line=pin.line, subject=pin.name, detail=NO_HASHES)
        for pin in bare[:MAX_NOTICES]
    ]


def _registries(lock: Lock, request: Request) -> list[Notice]:
    """A notice for each other registry that the lock names, where the sandbox's own is known."""
    if not request.registries:
        return []
    first: dict[str, Pin] = {}
    for pin in lock.pins:
        if pin.registry and not request.is_registry(pin.registry):
            first.setdefault(pin.registry, pin)
    return [setting_ignored(lock.path, pin.line, url) for url, pin in list(first.items())[:MAX_NOTICES]]
