"""Who may see a preview: an origin for each sandbox and port, and tokens that are signed and expire."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DOMAIN: Final = "preview.localhost"
OPENING_PATH: Final = "/.qila/open"
KEY_BYTES: Final = 32
_EXPIRY: Final = struct.Struct(">Q")
_HOST: Final = re.compile(rf"p([1-9][0-9]{{0,4}})-sb-([a-z2-7]{{26}})\.{re.escape(DOMAIN)}\Z")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{54}\Z")
_LAST_PORT: Final = 65535
_HTTP_PORT: Final = 80


@dataclass(frozen=True, kw_only=True)
class Target:
    """A port of a sandbox."""

    sandbox_id: str
    port: int

    @property
    def host(self) -> str:
        """The host name of its origin."""
        return f"p{self.port}-{self.sandbox_id.replace('_', '-')}.{DOMAIN}"


class PreviewLinks:
    """Signs and checks.

    Args:
        key: 32 secret bytes.
        port: at which previews are served.
    """

    def __init__(self, key: bytes, port: int) -> None:
        self._key = key
        self._port = port

    def url(self, target: Target, expiry: int) -> str:
        """The URL that opens the preview, until `expiry`, in seconds since 1970."""
        return f"http://{target.host}:{self._port}{OPENING_PATH}?token={self.token(target, expiry)}"

    def token(self, target: Target, expiry: int) -> str:
        """What stands for the right to see it."""
        return base64.urlsafe_b64encode(_EXPIRY.pack(expiry) + self._signature(target, expiry)).decode().rstrip("=")

    def expiry(self, target: Target, token: str, now: float) -> int | None:
        """When a token for this target expires; None if it is none, or has expired."""
        if not _TOKEN.match(token):
            return None
        (expiry,) = _EXPIRY.unpack_from(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        # Compared as text: the last character has bits of its own that say nothing.
        genuine = hmac.compare_digest(token, self.token(target, expiry))
        return expiry if genuine and now < expiry else None

    def target(self, authority: str) -> Target | None:
        """The target of a Host header; None if it names no preview of ours."""
        host, _, port = authority.lower().partition(":")
        found = _HOST.match(host)
        # The port that browsers leave out is that of HTTP.
        if found is None or (port or str(_HTTP_PORT)) != str(self._port) or int(found[1]) > _LAST_PORT:
            return None
        return Target(sandbox_id=f"sb_{found[2]}", port=int(found[1]))

    def _signature(self, target: Target, expiry: int) -> bytes:
        text = f"{target.sandbox_id} {target.port} {expiry}"
        return hmac.digest(self._key, text.encode(), hashlib.sha256)


def read_key(path: Path) -> bytes:
    """The installation's key, made when it is not there. OSError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise OSError(f"{path} does not hold a key; remove it, and another is made") from None
        return key
    with os.fdopen(descriptor, "wb") as file:
        key = os.urandom(KEY_BYTES)
        file.write(key)
        file.flush()
        os.fsync(descriptor)
    return key
