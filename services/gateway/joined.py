"""The locks of several projects as one file, as docs/locks.md describes it."""

from __future__ import annotations

import json
from collections.abc import Iterable

from qila.gateway.v1 import gateway_pb2 as pb

_FORMAT = 1


def joined_lock(locks: Iterable[pb.ProjectLock]) -> bytes:
    """The canonical bytes: the same for the same projects, whichever of them a program belongs to."""
    ordered = sorted(locks, key=lambda item: (item.project, item.ecosystem))
    document = {
        "format": _FORMAT,
        "locks": [{**json.loads(item.lock), "project": item.project} for item in ordered],
    }
    return (json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()
