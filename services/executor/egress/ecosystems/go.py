"""The Go door: modules from the proxy, and their checksums from the database that Go's client holds them against.

The proxy fetches a module that it does not know from the host in the module's path, and a checksum look-up makes the
database do the same: a sandbox could send messages to a host of its choice that way. So the proxy is always told not
to fetch, and a look-up is passed on only for a version that the proxy holds.
"""

import asyncio
import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass

from services.executor.egress.ecosystems.go_paths import (
    DatabaseRequest,
    LatestRequest,
    ListRequest,
    LookupRequest,
    SupportedRequest,
    VersionRequest,
    escape,
    is_version,
    parse_path,
    precedence,
)
from services.executor.egress.ecosystems.port import (
    Answer,
    Artefact,
    Ask,
    Document,
    Fetched,
    Missing,
    PackageRules,
    Page,
    Source,
)
from services.executor.egress.ecosystems.releases import account, refuse_package, refuse_release, sift
from services.executor.egress.registries import Registry
from services.executor.egress.verdicts import Refused, UpstreamFailed

_NO_FETCH = {"Disable-Module-Fetch": "true"}
_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"
_BINARY = "application/octet-stream"
_MAX_LIST_BYTES = 1 << 20
# Go's own limits are 16 MiB and 500 MiB.
_MAX_MOD_BYTES = 4 << 20
_MAX_ZIP_BYTES = 500 << 20
_SMALL_BYTES = 256 << 10


@dataclass(frozen=True, kw_only=True)
class _Release:
    """What the proxy says of a version."""

    version: str
    time: datetime.datetime | None


class GoModules:
    """Answers what is asked below `/go/`."""

    prefix = "go"

    def __init__(self, *, registry: Registry, rules: PackageRules) -> None:
        self._proxy = registry.url("proxy")
        self._database_url = registry.url("sumdb")
        # A database goes by the name of its host.
        self._database = registry.origins["sumdb"].host
        self._rules = rules

    async def answer(self, ask: Ask, source: Source) -> Answer:
        """What stands at a path of the module proxy's protocol.

        Raises:
            Refused: the protocol has no such path, or the package rules refuse the module or the version.
            TurnedAway: as `Source.page`.
        """
        match parse_path(ask.path, database=self._database):
            case ListRequest(module=module):
                return await self._list(module, source)
            case LatestRequest(module=module):
                return await self._latest(module, source)
            case VersionRequest() as wanted:
                return await self._version(wanted, source)
            case LookupRequest(module=module, version=version):
                return await self._lookup(module, version, source)
            case DatabaseRequest(path=path, immutable=immutable):
                return await self._database_page(path, "go checksum tree", source, immutable=immutable)
            case SupportedRequest():
                # Always: where the proxy does not pass the database on, this door asks at its own origin.
                return Document(body=b"", content_type=_TEXT, rule="go checksums supported")
            case None:
                raise Refused(
                    status=404,
                    rule="no such path",
                    advice="The Go door has the module proxy's protocol for versions such as v1.2.3"
                    " (branches, tags and commits have no version of their own there) and its checksum database.",
                )

    async def _list(self, module: str, source: Source) -> Answer:
        refuse_package(self._rules, module)
        page = await source.page(Page(url=self._url(module, "@v/list"), headers=_NO_FETCH, max_bytes=_MAX_LIST_BYTES))
        if page is None:
            return Missing(rule="go list", advice=f"The Go module proxy has no module {module}.")
        known, unknown = await asyncio.to_thread(_read_list, page.body)
        newest_first = await asyncio.to_thread(sorted, known, key=precedence, reverse=True)
        sifted = await sift(
            self._rules, module, newest_first, lambda version: self._release_time(module, version, source)
        )
        kept = set(sifted.kept)
        body = "".join(f"{version}\n" for version in known if version in kept)
        return Document(
            body=body.encode(),
            content_type=_TEXT,
            rule="go list",
            left_out=(*account((line, "no version of Go's form") for line in unknown), *sifted.left_out),
        )

    async def _latest(self, module: str, source: Source) -> Answer:
        refuse_package(self._rules, module)
        page = await source.page(Page(url=self._url(module, "@latest"), headers=_NO_FETCH, max_bytes=_SMALL_BYTES))
        if page is None:
            return Missing(rule="go latest", advice=f"The Go module proxy has no module {module}.")
        release = _read_release(page, module)

        async def release_time(_version: str) -> datetime.datetime | None:
            return release.time

        await refuse_release(self._rules, module, release.version, release_time)
        return Document(body=page.body, content_type=_JSON, rule="go latest")

    async def _version(self, wanted: VersionRequest, source: Source) -> Answer:
        await self._refuse(wanted.module, wanted.version, source)
        rule = f"go {wanted.kind}"
        if wanted.kind == "zip":
            return Artefact(
                url=self._version_page(wanted.module, wanted.version, "zip").url,
                rule=rule,
                headers=_NO_FETCH,
                content_type="application/zip",
                max_bytes=_MAX_ZIP_BYTES,
            )
        page = await source.page(self._version_page(wanted.module, wanted.version, wanted.kind))
        if page is None:
            return _unserved(rule, wanted.module, wanted.version)
        if wanted.kind == "info":
            _read_release(page, wanted.module, expected=wanted.version)
        return Document(body=page.body, content_type=_JSON if wanted.kind == "info" else _TEXT, rule=rule)

    async def _lookup(self, module: str, version: str, source: Source) -> Answer:
        await self._refuse(module, version, source)
        # Go has just asked for the same file, so it is at hand.
        if await source.page(self._version_page(module, version, "mod")) is None:
            return _unserved("go checksum", module, version)
        return await self._database_page(
            f"lookup/{escape(module)}@{escape(version)}", "go checksum", source, immutable=True
        )

    async def _database_page(self, path: str, rule: str, source: Source, *, immutable: bool) -> Answer:
        """A page of the checksum database: from the proxy, or, where that does not pass it on, from its own origin."""
        places: tuple[tuple[str, Mapping[str, str]], ...] = (
            (f"{self._proxy}/sumdb/{self._database}/{path}", _NO_FETCH),
            (f"{self._database_url}/{path}", {}),
        )
        for url, headers in places:
            page = await source.page(Page(url=url, headers=headers, max_bytes=_SMALL_BYTES, immutable=immutable))
            if page is not None:
                content_type = _BINARY if path.startswith("tile/") else _TEXT
                return Document(body=page.body, content_type=content_type, rule=rule)
        return Missing(rule=rule, advice=f"The Go checksum database has no {path}.")

    async def _refuse(self, module: str, version: str, source: Source) -> None:
        await refuse_release(self._rules, module, version, lambda version: self._release_time(module, version, source))

    async def _release_time(self, module: str, version: str, source: Source) -> datetime.datetime | None:
        page = await source.page(self._version_page(module, version, "info"))
        return None if page is None else _read_release(page, module, expected=version).time

    def _version_page(self, module: str, version: str, kind: str) -> Page:
        return Page(
            url=self._url(module, f"@v/{escape(version)}.{kind}"),
            headers=_NO_FETCH,
            max_bytes=_MAX_MOD_BYTES if kind == "mod" else _SMALL_BYTES,
            immutable=True,
        )

    def _url(self, module: str, rest: str) -> str:
        return f"{self._proxy}/{escape(module)}/{rest}"


def _read_list(page: bytes) -> tuple[list[str], list[str]]:
    """The versions of a list in its order, and the lines that are none. A line can go on with a time."""
    lines = dict.fromkeys(line.split()[0] for line in page.decode("utf-8", "replace").splitlines() if line.strip())
    known = [line for line in lines if is_version(line)]
    return known, [line for line in lines if not is_version(line)]


def _read_release(page: Fetched, module: str, *, expected: str | None = None) -> _Release:
    """What an `.info` or `@latest` page says, which must be of the version `expected`, if that is given.

    Raises:
        UpstreamFailed: it is no such page.
    """
    try:
        document = json.loads(page.body)
    except (ValueError, RecursionError) as error:
        raise _unusable(module) from error
    version = document.get("Version") if isinstance(document, dict) else None
    if not isinstance(version, str) or not is_version(version) or (expected is not None and version != expected):
        raise _unusable(module)
    return _Release(version=version, time=_read_time(document.get("Time")))


def _read_time(text: object) -> datetime.datetime | None:
    try:
        time = datetime.datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    # A time without a zone is no time of Go's, and cannot be compared.
    return time if time is not None and time.tzinfo is not None else None


def _unusable(module: str) -> UpstreamFailed:
    return UpstreamFailed(
        status=502, rule="invalid release", advice=f"What the Go module proxy says of {module} cannot be used."
    )


def _unserved(rule: str, module: str, version: str) -> Missing:
    return Missing(
        rule=rule,
        advice=f"The Go module proxy does not hold {module} {version}, and from here it fetches nothing that it"
        " does not hold. Check the version's spelling; a release of the last minutes is there as soon as anybody"
        " outside has asked the proxy for it.",
    )
