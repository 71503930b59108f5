"""The shape of one registry behind the mirror: it asks (`Source`) and tells (`Answer`), and does no I/O of its own.

An ecosystem decides which paths exist, which upstream page or artefact each one stands for, how an index page is
rewritten so that its artefacts come through the mirror as well, and what the operator's package rules leave out of it.
The mirror does the rest: HTTP, cache, redirects, digests, streaming, records.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a sandbox asks for: the raw path below the ecosystem's prefix, beginning with `/`, and the Accept header."""

    path: str
    accept: str = "*/*"


@dataclass(frozen=True, kw_only=True)
class Digest:
    """What an artefact's bytes must hash to; `hex` is lower-case."""

    algorithm: Literal["sha1", "sha256", "sha512"]
    hex: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """A small upstream document: fetched whole, kept, and asked for again only to see whether it changed.

    `immutable` pages are never asked for again once they are kept. `max_bytes` counts after decompression.
    """

    url: str
    accept: str = "*/*"
    headers: Mapping[str, str] = field(default_factory=dict)
    max_bytes: int = 1 << 20
    immutable: bool = False


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A page as it came; `last_modified` if the registry said."""

    body: bytes
    last_modified: datetime.datetime | None = None


class Source(Protocol):
    """The registry, as an ecosystem sees it."""

    async def page(self, page: Page) -> Fetched | None:
        """The page, from the cache where that is allowed; None if the registry has none (404, 410).

        Raises:
            TurnedAway: the registry cannot be asked, or what it says cannot be used.
        """


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Entries of an index that are not passed on: why, how many, and the first few of their names."""

    reason: str
    count: int
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """An answer made here: a rewritten index, say. `rule` names the grammar's row in the record."""

    body: bytes
    content_type: str
    rule: str
    vary_accept: bool = False
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """An answer streamed from upstream or from the cache, and held against `digest` where the index gives one."""

    url: str
    rule: str
    digest: Digest | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/octet-stream"
    max_bytes: int = 4 << 30


@dataclass(frozen=True, kw_only=True)
class Missing:
    """The registry has no such thing; `advice` is the plain text that the client is shown with the 404."""

    rule: str
    advice: str


Answer = Document | Artefact | Missing


class PackageRules(Protocol):
    """The operator's rules for the packages of one ecosystem."""

    @property
    def needs_release_times(self) -> bool:
        """Whether the rules ask how old a release is."""

    def refusal(self, name: str, version: str | None, released: datetime.datetime | None) -> str | None:
        """Why a package (`version` None: all of it), or a release of it, is refused; None if it is not.

        `name` is in the ecosystem's normal form. Where rules ask for an age, a release whose time is not known
        (`released` None, `version` given) is refused: the rules close, they never open.
        """


class Ecosystem(Protocol):
    """One registry's door."""

    @property
    def prefix(self) -> str:
        """The first part of its paths, without slashes: `pypi`, `npm`, `go`, `maven`."""

    async def answer(self, ask: Ask, source: Source) -> Answer:
        """What stands at a path.

        Raises:
            Refused: the door has no such path, or the operator's rules refuse the package (`rule` then begins with
                `policy: `).
            TurnedAway: as `Source.page`.
        """
