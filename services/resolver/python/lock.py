"""The native lock of an environment against what is installed there, and the two as one normalised list."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as ParsedRequirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from services.resolver.errors import InstallMismatchError, InventoryError, LockError
from services.resolver.model import LockedPackage, Unmanaged
from services.resolver.python.artefacts import LockedFile, installed_file
from services.resolver.python.environment import UnreadableMarkerError, holds, marker_environment
from services.resolver.python.inventory import InstalledPackage, read_inventory, read_unmanaged
from services.resolver.python.licenses import license_of
from services.resolver.python.native_pylock import Pin, is_pylock, read_pylock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_LOCK_BYTES = 64 * 1024 * 1024
HASH = re.compile(r"\s--hash[= ](sha(?:256|384|512):[0-9a-f]{64,128})")
COMMENT = re.compile(r"(^|\s)#.*$")
NAMED_FILE = re.compile(r"# (?P<hash>sha(?:256|384|512):[0-9a-f]{64,128}) (?P<name>\S{1,255})")


def read_native_lock(raw: bytes, python: str) -> list[Pin]:
    """The pins that apply to the sandbox's Python; raises LockError."""
    if len(raw) > MAX_LOCK_BYTES:
        raise LockError(line=0, reason=f"{len(raw)} bytes is above the limit of {MAX_LOCK_BYTES}")
    return read_pylock(raw, python) if is_pylock(raw) else _read_requirements(raw, python)


def _read_requirements(raw: bytes, python: str) -> list[Pin]:
    """The pins of hashed requirements, as an author's own lock gives them; comments may name the file of each hash."""
    try:
        lines = raw.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise LockError(line=raw[: error.start].count(b"\n") + 1, reason="is not UTF-8") from error
    pins: dict[str, Pin] = {}
    pieces: list[str] = []
    files: list[LockedFile] = []
    for number, line in enumerate(lines, start=1):
        if named := NAMED_FILE.fullmatch(line):
            files.append(LockedFile(name=named["name"], hashes=(named["hash"],)))
        pieces.append(COMMENT.sub("", line.removesuffix("\\")))
        if line.endswith("\\"):
            continue
        text = " ".join(pieces).strip()
        pieces = []
        if not text:
            continue
        pin = _pin(number, text, python)
        if pin is not None:
            pins[pin.name] = replace(pin, files=tuple(files))
        files = []
    return list(pins.values())


def verify_install(native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]) -> None:
    """Raise InstallMismatchError unless exactly the lock is installed, each file unchanged."""
    locked = {pin.name: pin.version for pin in read_native_lock(native_lock, toolchain["python"])}
    installed = {package.name: package for package in read_inventory(inventory)}
    absent = [f"{name}=={version}" for name, version in locked.items() if name not in installed]
    unexpected = [f"{name}=={package.version}" for name, package in installed.items() if name not in locked]
    other = [
        f"{name}=={package.version}"
        for name, package in installed.items()
        if name in locked and not _same_version(package.version, locked[name])
    ]
    damaged = [f"{name}: {file}" for name, package in installed.items() for file in package.missing + package.modified]
    if absent or unexpected or other or damaged:
        raise InstallMismatchError(
            absent=tuple(absent), unexpected=tuple(unexpected), other_version=tuple(other), damaged=tuple(damaged)
        )


def locked_packages(
    direct: Iterable[str], native_lock: bytes, inventory: bytes, toolchain: Mapping[str, str]
) -> list[LockedPackage]:
    """The installed packages with their hashes, licence, and who required them."""
    python = toolchain["python"]
    pins = {pin.name: pin for pin in read_native_lock(native_lock, python)}
    installed = {package.name: package for package in read_inventory(inventory)}
    parsed = [_direct(item) for item in direct]
    wanted = {str(canonicalize_name(item.name)) for item in parsed}
    requirers = _requirers(installed, parsed, python)
    hashes = {name: _hashes(pins[name], package, python) for name, package in installed.items() if name in pins}
    return [_locked(package, hashes, wanted, requirers, installed) for package in installed.values()]


def unmanaged_packages(inventory: bytes, python: str) -> Unmanaged:
    """The packages that somebody installed by hand: without hashes, and direct unless another one requires them."""
    packages, complete = read_unmanaged(inventory)
    installed = {package.name: package for package in packages}
    requirers = _requirers(installed, (), python)
    direct = installed.keys() - requirers.keys()
    found = [_locked(package, {}, set(direct), requirers, installed) for package in installed.values()]
    return Unmanaged(packages=tuple(found), complete=complete)


def _locked(
    package: InstalledPackage,
    hashes: Mapping[str, tuple[str, ...]],
    direct: set[str],
    requirers: Mapping[str, set[str]],
    installed: Mapping[str, InstalledPackage],
) -> LockedPackage:
    expression, raw = license_of(package.license_expression, package.license, package.classifiers)
    return LockedPackage(
        purl=_purl(package),
        name=package.name,
        version=package.version,
        hashes=hashes.get(package.name, ()),
        license=expression,
        license_text=raw,
        direct=package.name in direct,
        required_by=tuple(sorted(_purl(installed[name]) for name in requirers.get(package.name, ()))),
    )


def _hashes(pin: Pin, package: InstalledPackage, python: str) -> tuple[str, ...]:
    """The hashes of the file that was installed, or of all that the lock accepts if it does not tell which."""
    file = installed_file(pin.files, package, python)
    return tuple(sorted(file.hashes if file and file.hashes else pin.hashes))


def _requirers(
    installed: Mapping[str, InstalledPackage], direct: Iterable[ParsedRequirement], python: str
) -> dict[str, set[str]]:
    """Who requires whom, with the extras that are asked for, found by following them from the direct ones."""
    found: dict[str, set[str]] = {}
    parsed = {name: list(_readable(package.requires_dist)) for name, package in installed.items()}
    # Every package counts without extras, direct or not; extras only where someone asks for them.
    pending = [(name, "") for name in installed]
    pending += [(str(canonicalize_name(item.name)), str(extra)) for item in direct for extra in item.extras]
    seen = set(pending)
    while pending:
        name, extra = pending.pop()
        for item in parsed.get(name, ()):
            if not _applies(item, marker_environment(python) | {"extra": extra}):
                continue
            required = str(canonicalize_name(item.name))
            if required in installed and required != name:
                found.setdefault(required, set()).add(name)
            reached = {(required, str(wanted)) for wanted in item.extras} - seen
            seen |= reached
            pending.extend(reached)
    return found


def _readable(requires_dist: Iterable[str]) -> Iterable[ParsedRequirement]:
    """What a package says that it requires. Its author wrote it: a line that is no requirement says nothing."""
    for text in requires_dist:
        try:
            yield ParsedRequirement(text)
        except (InvalidRequirement, RecursionError):
            continue


def _applies(item: ParsedRequirement, environment: Mapping[str, str]) -> bool:
    """Whether it is required in the environment; not where its marker cannot be read."""
    try:
        return item.marker is None or holds(item.marker, environment)
    except UnreadableMarkerError:
        return False


def _direct(text: str) -> ParsedRequirement:
    try:
        return ParsedRequirement(text)
    except (InvalidRequirement, RecursionError) as error:
        raise InventoryError(path="direct.requires_dist", reason=f"not a requirement: {text[:80]!r}") from error


def _pin(line: int, text: str, python: str) -> Pin | None:
    hashes = tuple(HASH.findall(text))
    try:
        parsed = ParsedRequirement(HASH.sub("", text).strip())
    except (InvalidRequirement, RecursionError) as error:
        raise LockError(line=line, reason=f"not a pinned requirement: {text[:80]!r}") from error
    exact = [item.version for item in parsed.specifier if item.operator in {"==", "==="}]
    if len(exact) != 1 or len(parsed.specifier) != 1:
        raise LockError(line=line, reason=f"{parsed.name} has no exact version")
    try:
        if parsed.marker and not holds(parsed.marker, marker_environment(python)):
            return None
    except UnreadableMarkerError as error:
        raise LockError(line=line, reason=f"{parsed.name} has a marker that cannot be read: {str(error)!r}") from error
    return Pin(name=str(canonicalize_name(parsed.name)), version=exact[0], hashes=hashes)


def _same_version(one: str, other: str) -> bool:
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other


def _purl(package: InstalledPackage) -> str:
    return f"pkg:pypi/{package.name}@{package.version.replace('+', '%2B').replace('!', '%21')}"
