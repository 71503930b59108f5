"""What a lock from outside says: exactly its versions and hashes are installed, whatever the program's go.mod says."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from services.resolver.errors import LockError, ManifestError
from services.resolver.go import installer
from services.resolver.go.bundle import LockedModule, is_lock, read_lock, split
from services.resolver.go.installer import Solving, Wanted
from services.resolver.go.mod_file import read_go_mod
from services.resolver.go.names import HASH, VERSION, is_path, language_of, provider
from services.resolver.go.needs import (
    COMPLETE_SINCE,
    Needs,
    added_requirements,
    findings,
    local_imports,
    relative,
    sorted_findings,
    with_added,
)
from services.resolver.go.sources import MOD
from services.resolver.lockfile import is_qila_lock, lines_of_packages, read_qila_lock
from services.resolver.model import LockLine, Notice, NoticeKind, Origin, OriginKind, Requirement, Source
from services.resolver.paths import join

if TYPE_CHECKING:
    from services.resolver.go.mod_file import Replaced
    from services.resolver.go.needs import Situation
    from services.resolver.model import Lockfile

OF_GO = re.compile(rb'"ecosystem"\s*:\s*"go"')


def is_given(lock: Lockfile | None) -> bool:
    """Whether a lock from outside is one of this ecosystem."""
    if lock is None:
        return False
    return bool(OF_GO.search(lock.content)) if is_qila_lock(lock) else is_lock(lock)


def given_needs(lock: Lockfile, situation: Situation) -> Needs:
    """What a lock from outside says; imports of nothing in it are reported. Raises LockError."""
    locked, sums, replaced = _read(lock)
    if not any(item.direct for item in locked):
        # A go.sum does not tell what is direct: what the program imports is.
        names = {item.path for item in locked}
        imported = {provider(path, names) for path in situation.reached.packages}
        locked = [replace(item, direct=item.path in imported) for item in locked]
    paths = {*(item.path for item in locked), *(item.path for item in replaced)}
    reached = situation.reached
    known = {path: at for path, at in reached.packages.items() if provider(path, paths)}
    imports, get = with_added(situation.options, known, reached)
    beyond = {path: at for path, at in reached.packages.items() if path not in imports}
    files = installer.module_files(situation.directory, _mod(situation, locked, replaced), sums)
    files |= local_imports(situation, imports, reached)
    solving = Solving.TIDY if set(imports) - set(known) else Solving.KEEP
    wanted = Wanted(files=files, directory=situation.directory, solving=solving, get=get)
    needed = bool(locked or imports or get or situation.modules.named or situation.modules.local)
    return Needs(
        source=Source.LOCK,
        requirements=(*_requirements(lock, locked), *added_requirements(situation.options, known)),
        manifests=(lock.name,),
        wanted=wanted if needed else None,
        undeclared=tuple(findings(beyond, join(situation.directory, MOD))),
        unknown=tuple(sorted_findings(reached.unknown)),
        lock_lines=tuple(
            LockLine(name=item.path, version=item.version, path=lock.name, line=item.line) for item in locked
        ),
        notices=(*_without_hashes(lock, locked), *situation.modules.notices, *reached.notices),
    )


def _read(lock: Lockfile) -> tuple[list[LockedModule], bytes, list[Replaced]]:
    """Modules, the lines of go.sum, and which modules stand in for others."""
    if is_qila_lock(lock):
        locked = _of_qila_lock(lock)
        lines = [f"{item.path} {item.version} {item.hash}\n" for item in locked]
        return locked, "".join(lines).encode(), []
    bundle = split(lock.content, lock.name)
    try:
        replaces = read_go_mod(bundle.mod, lock.name).replaces if bundle.mod else []
    except ManifestError as error:
        line = error.line + bundle.mod_line if error.line else 0
        raise LockError(name=lock.name, line=line, reason=error.reason) from error
    return read_lock(lock.content, lock.name), bundle.sum, [item for item in replaces if not item.is_local]


def _of_qila_lock(lock: Lockfile) -> list[LockedModule]:
    found = []
    packages = read_qila_lock(lock.content, lock.name).packages
    lines = lines_of_packages(lock.content)
    for package in packages:
        line = lines.get(package.purl, 0)
        digest = next((item for item in package.hashes if HASH.fullmatch(item)), "")
        if not is_path(package.name) or not VERSION.fullmatch(package.version) or not digest:
            reason = f"{package.name[:80]} {package.version[:80]} is no module of Go with a version and a hash h1:…"
            raise LockError(name=lock.name, line=line, reason=reason)
        found.append(
            LockedModule(path=package.name, version=package.version, hash=digest, direct=package.direct, line=line)
        )
    return sorted(found, key=lambda item: item.path)


def _mod(situation: Situation, locked: list[LockedModule], replaced: list[Replaced]) -> bytes:
    """A go.mod that requires the lock's modules, with the program's own name and its local modules."""
    modules = situation.modules
    own = modules.main.file.go if modules.main.file is not None else None
    language = own.text if own is not None and language_of(own.text) >= COMPLETE_SINCE else ""
    language = language or ".".join(situation.toolchain.split(".")[:2])
    lines = [f"module {modules.main.path}\n", f"go {language}\n"]
    stands_for = {(item.new_path, item.new_version): item for item in replaced}
    for item in locked:
        old = stands_for.get((item.path, item.version))
        path, version = (old.path, old.version or item.version) if old is not None else (item.path, item.version)
        lines.append(f"require {path} {version}{'' if item.direct else ' // indirect'}\n")
        if old is not None:
            lines.append(f"replace {path} => {item.path} {item.version}\n")
    lines += [f"replace {item.path} => {relative(modules.main.directory, item.directory)}\n" for item in modules.local]
    return "\n".join(lines).encode()


def _requirements(lock: Lockfile, locked: list[LockedModule]) -> list[Requirement]:
    return [
        Requirement(
            specifier=f"{item.path}@{item.version}",
            name=item.path,
            origins=(Origin(kind=OriginKind.LOCK, path=lock.name, line=item.line),),
        )
        for item in locked
        if item.direct
    ]


def _without_hashes(lock: Lockfile, locked: list[LockedModule]) -> list[Notice]:
    bare = [item for item in locked if not item.hash]
    if not bare:
        return []
    detail = f"{len(bare)} modules have no hash in it; what the checksum database says is accepted"
    kind = NoticeKind.LOCK_NOT_HONOURED
    return [Notice(kind=kind, path=lock.name, line=bare[0].line, subject=bare[0].path, detail=detail)]
