"""The ids that tie the log lines of all services together: the request's, and the sandbox's and exec's it works for.

A request id is made for each call of a client. All three are carried through every service that works on the call;
those of the sandbox and the exec are taken from another service alone, never from a client.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping

REQUEST_ID_KEY: Final = "x-qila-request-id"
_CARRIED_KEYS: Final = {"sandbox_id": "x-qila-sandbox-id", "exec_id": "x-qila-exec-id"}
_WELL_FORMED: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


def bind_from(metadata: Mapping[str, str | bytes], *, from_service: bool, **known: str) -> None:
    """Binds the ids that came with a call, each if it is 1 to 64 of [A-Za-z0-9_.-]; a request id in any case.

    `known` are bound as they are, instead of what came.
    """
    structlog.contextvars.clear_contextvars()
    offered = {"request_id": metadata.get(REQUEST_ID_KEY)}
    if from_service:
        offered |= {name: metadata.get(key) for name, key in _CARRIED_KEYS.items()}
    taken = {name: value for name, value in offered.items() if isinstance(value, str) and _WELL_FORMED.match(value)}
    request_id = taken.pop("request_id", "") or mint_request_id()
    structlog.contextvars.bind_contextvars(request_id=request_id, **taken | known)


def mint_request_id() -> str:
    """A new request id: 96 random bits."""
    return "rq_" + secrets.token_hex(12)


def metadata() -> dict[str, str]:
    """What a call to another service carries: the ids that this task works for; a new request id outside calls."""
    bound = structlog.contextvars.get_contextvars()
    carried = {key: str(bound[name]) for name, key in _CARRIED_KEYS.items() if name in bound}
    carried = {key: value for key, value in carried.items() if _WELL_FORMED.match(value)}
    return {REQUEST_ID_KEY: str(bound.get("request_id") or mint_request_id()), **carried}
