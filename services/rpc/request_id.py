"""Request ids: one for each call of a client, carried through every service that works on it."""

from __future__ import annotations

import re
import secrets
from typing import Final

import structlog

METADATA_KEY: Final = "x-qila-request-id"
_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


def take_or_mint(offered: str | bytes | None) -> str:
    """The id that came with a call, if it is 1 to 64 of [A-Za-z0-9_.-]; else a new one."""
    if isinstance(offered, str) and _WELL_FORMED.match(offered):
        return offered
    return "rq_" + secrets.token_hex(12)


def current() -> str:
    """The id of the call that this task works for; a new one outside of any call."""
    bound = structlog.contextvars.get_contextvars().get("request_id")
    return take_or_mint(bound)
