"""Requirements that name exact versions, as pip-compile and `uv pip compile` write them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.python.locks.model import Lock, Pin, one_of_each, pin_of
from services.resolver.python.manifests.requirements_file import Declared, read_requirements

if TYPE_CHECKING:
    from services.resolver.python.locks.model import LockRequest


def read_requirements_lock(path: str, raw: bytes, wanted: LockRequest) -> Lock:
    """The pins that apply to the sandbox; raises ManifestError where a requirement names no exact version."""
    request = replace(wanted.request, files={**wanted.request.files, path: raw})
    found = read_requirements(path, request)
    pins = [_pin(item) for item in found.requirements if request.applies(item.specifier.marker)]
    return Lock(path=path, pins=one_of_each(path, pins), tells_direct=False)


def exact_version(item: Declared) -> str:
    """The only version that a requirement allows, or an empty string."""
    pins = [specifier for specifier in item.specifier.specifier if specifier.operator in {"==", "==="}]
    return pins[0].version if len(pins) == 1 and not pins[0].version.endswith(".*") else ""


def _pin(item: Declared) -> Pin:
    version = exact_version(item)
    if not version:
        reason = f"{item.specifier.name} has no exact version, so this is no lock"
        raise ManifestError(path=item.path, line=item.line, reason=reason)
    return pin_of(item.path, item.line, item.specifier.name, version, item.hashes)
