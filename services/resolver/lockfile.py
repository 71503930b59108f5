"""qila.lock.json: what is installed, in the same words for every ecosystem."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.resolver.model import LockedPackage

LOCK_FORMAT = 1
# Left out where it says nothing, so that most entries are short.
OPTIONAL_KEYS = ("license_text", "locations")


def lock_to_json(ecosystem: str, packages: Iterable[LockedPackage], toolchain: Mapping[str, str]) -> bytes:
    """The canonical bytes: the same for the same packages, whatever their order."""
    document = {
        "format": LOCK_FORMAT,
        "ecosystem": ecosystem,
        "toolchain": dict(toolchain),
        "packages": [_package_to_json(package) for package in sorted(packages, key=lambda package: package.purl)],
    }
    return (json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def _package_to_json(package: LockedPackage) -> dict[str, object]:
    document = asdict(package)
    for key in OPTIONAL_KEYS:
        if not document[key]:
            del document[key]
    return document
