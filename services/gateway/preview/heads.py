"""What a preview changes in the heads of requests and responses: nothing of ours reaches the program, or leaves it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from services.gateway.preview.links import PreviewLinks, Target

COOKIE: Final = "qila_preview"
HEADER: Final = b"x-qila-preview"
Header = tuple[bytes, bytes]
# Of one connection alone; h11 knows the framing.
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"upgrade",
    }
)
_DISTANT: Final = frozenset({"same-site", "cross-site"})
# Within a page, where clicks can be led astray.
_FRAMES: Final = frozenset({"iframe", "frame", "embed", "object", "fencedframe"})
# What the program hears of us, and of nobody else.
_FORWARDED: Final = frozenset({b"x-forwarded-host", b"x-forwarded-proto"})
# Would clear the cookies of every preview: to a browser all are one site.
_NOT_FOR_BROWSERS: Final = frozenset({b"set-cookie", b"clear-site-data"})


def value_of(headers: Iterable[Header], name: bytes) -> str:
    """The first header of that lower-case name; empty if there is none."""
    return next((value.decode("latin-1") for key, value in headers if key == name), "")


def is_upgrade(headers: Sequence[Header]) -> bool:
    """Whether it asks for a WebSocket."""
    return value_of(headers, b"upgrade").lower() == "websocket"


def tokens_of(headers: Sequence[Header]) -> list[str]:
    """The tokens that a request carries, in its own header and in cookies: another preview may have set some too."""
    pairs = [pair for key, value in headers if key == b"cookie" for pair in value.decode("latin-1").split(";")]
    cookies = [value for name, _, value in (pair.strip().partition("=") for pair in pairs) if name == COOKIE]
    return [value.decode("latin-1") for key, value in headers if key == HEADER] + cookies


def comes_from_elsewhere(headers: Sequence[Header], target: Target, links: PreviewLinks) -> bool:
    """Whether a page of another origin has a browser send this: all previews are one site to it, so cookies go along.

    Other ports of the same sandbox count as its own. To follow a link is always allowed, to show it in a frame is not.
    """
    page = value_of(headers, b"origin")
    if not page:
        if value_of(headers, b"sec-fetch-site") not in _DISTANT or _follows_link(headers):
            return False
        page = value_of(headers, b"referer")
    source = links.target(page.removeprefix("http://").partition("/")[0]) if page.startswith("http://") else None
    return source is None or source.sandbox_id != target.sandbox_id


def for_program(headers: Sequence[Header]) -> list[Header]:
    """The headers of a request as the program gets them."""
    upgrade = is_upgrade(headers)
    dropped = _HOP_BY_HOP | _FORWARDED | {b"cookie", HEADER}
    if any(key == b"transfer-encoding" for key, _ in headers):
        # Two lengths are an invitation to read the second one.
        dropped |= {b"content-length"}
    kept = [(key, value) for key, value in headers if key not in dropped]
    cookies = b"; ".join(filter(None, (_foreign(value) for key, value in headers if key == b"cookie")))
    if cookies:
        kept.append((b"cookie", cookies))
    host = value_of(headers, b"host").encode("latin-1")
    kept += [(b"x-forwarded-host", host), (b"x-forwarded-proto", b"http")]
    # One request a connection: what ends it cannot be forged by the program.
    return kept + (
        [(b"connection", b"upgrade"), (b"upgrade", b"websocket")] if upgrade else [(b"connection", b"close")]
    )


def for_browser(headers: Sequence[Header], *, upgrade: bool) -> list[Header]:
    """The headers of a response as the browser gets them."""
    kept = [(key, value) for key, value in headers if key not in _HOP_BY_HOP and key not in _NOT_FOR_BROWSERS]
    kept += [(key, _own(value)) for key, value in headers if key == b"set-cookie" and not _is_ours(value)]
    return kept + ([(b"connection", b"upgrade"), (b"upgrade", b"websocket")] if upgrade else [])


def opening_cookie(token: str, seconds: int) -> bytes:
    """The cookie that an opened preview leaves: for its own origin alone, and for no script."""
    return f"{COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax".encode()


def _follows_link(headers: Sequence[Header]) -> bool:
    return value_of(headers, b"sec-fetch-mode") == "navigate" and value_of(headers, b"sec-fetch-dest") not in _FRAMES


def _foreign(cookies: bytes) -> bytes:
    pairs = [pair.strip() for pair in cookies.split(b";")]
    return b"; ".join(pair for pair in pairs if pair and not pair.startswith(COOKIE.encode() + b"="))


def _own(cookie: bytes) -> bytes:
    """A program's cookie stays with its own origin."""
    parts = cookie.split(b";")
    return b";".join(part for part in parts if part.strip().partition(b"=")[0].lower() != b"domain")


def _is_ours(cookie: bytes) -> bool:
    return cookie.partition(b"=")[0].strip().decode("latin-1").lower() == COOKIE
