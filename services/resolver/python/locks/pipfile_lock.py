"""`Pipfile.lock`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from services.resolver.errors import ManifestError
from services.resolver.python.locks.model import (
    FROM_ELSEWHERE,
    MAX_PACKAGES,
    Lock,
    Pin,
    marker_of,
    one_of_each,
    pin_of,
)
from services.resolver.python.manifests.text import decode_manifest

if TYPE_CHECKING:
    from services.resolver.python.locks.model import LockRequest

DEFAULT = "default"
DEVELOPMENT = "develop"
# How the section of the lock is called in a Pipfile, and by people.
SAME_AS_DEVELOPMENT = frozenset({"dev", "dev-packages", DEVELOPMENT})
META = "_meta"
EXACT = "=="


def read_pipfile_lock(path: str, raw: bytes, wanted: LockRequest) -> Lock:
    """The pins of the default section and of those that were asked for; raises ManifestError."""
    text = decode_manifest(path, raw)
    document = _parse(path, text)
    lines = _key_lines(text)
    groups = {DEVELOPMENT if name in SAME_AS_DEVELOPMENT else name for name in wanted.request.groups}
    pins: list[Pin] = []
    for section, packages in document.items():
        if section == META or str(canonicalize_name(section)) not in {DEFAULT, *groups}:
            continue
        start = lines.get(section, [1])[0]
        if not isinstance(packages, dict) or len(packages) > MAX_PACKAGES:
            reason = f"{section[:80]} must be an object of at most {MAX_PACKAGES} packages"
            raise ManifestError(path=path, line=start, reason=reason)
        for name, fields in packages.items():
            line = next((number for number in lines.get(name, ()) if number > start), start)
            pin = _pin(path, line, name, fields, wanted)
            if pin is not None:
                pins.append(pin)
    known = {str(canonicalize_name(section)) for section in document} - {DEFAULT, str(canonicalize_name(META))}
    if DEVELOPMENT in known:
        known |= SAME_AS_DEVELOPMENT
    return Lock(path=path, pins=one_of_each(path, pins), groups=frozenset(known))


def _pin(path: str, line: int, name: str, fields: Any, wanted: LockRequest) -> Pin | None:
    """The pin of a package; None if it does not apply to the sandbox, or is the project itself."""
    if not isinstance(fields, dict):
        raise ManifestError(path=path, line=line, reason=f"{name[:80]} must be an object")
    if not wanted.request.applies(marker_of(path, line, fields.get("markers"))) or fields.get("path") == ".":
        return None
    version, hashes = fields.get("version"), fields.get("hashes", [])
    if version is None:
        raise ManifestError(path=path, line=line, reason=f"{name[:80]} {FROM_ELSEWHERE}")
    if not isinstance(version, str) or not version.startswith(EXACT) or not isinstance(hashes, list):
        raise ManifestError(path=path, line=line, reason=f"{name[:80]} has no exact version")
    return pin_of(path, line, name, version.lstrip("="), hashes)


def _parse(path: str, text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ManifestError(path=path, line=error.lineno, column=error.colno, reason=error.msg) from error
    except (RecursionError, ValueError) as error:
        raise ManifestError(path=path, line=1, reason="is nested too deep; no lock needs that") from error
    if not isinstance(document, dict):
        raise ManifestError(path=path, line=1, reason="must be an object")
    return document


def _key_lines(text: str) -> dict[str, list[int]]:
    """The lines that begin with each quoted key."""
    found: dict[str, list[int]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        key = line.strip()
        if key.startswith('"'):
            found.setdefault(key[1:].partition('"')[0], []).append(number)
    return found
