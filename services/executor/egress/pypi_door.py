"""The PyPI door: index pages rewritten to lead back here, artefacts streamed and held against their digests."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import structlog
from aiohttp import ClientResponse, web

from services.executor.egress.ecosystems.port import PackageRules
from services.executor.egress.ecosystems.pypi_index import (
    HTML_TYPE,
    JSON_TYPE,
    InvalidIndex,
    ProjectIndex,
    read_index,
    render_html,
    render_json,
    wants_html,
)
from services.executor.egress.ecosystems.pypi_paths import FileRequest, ProjectRequest, parse_path, stored_filename
from services.executor.egress.pypi_door_rules import file_refusal, releases_of, without_refused
from services.executor.egress.registries import Registry
from services.executor.egress.reports import Reports
from services.executor.egress.upstream import Upstream, UpstreamBrokeOff, file_chunks
from services.executor.egress.verdicts import Refused, UpstreamFailed, Visit

_log = structlog.get_logger()

_MAX_INDEX_BYTES = 64 * 1024**2
_MAX_FILE_BYTES = 4 * 1024**3
# A page of the largest size costs some ten times that while it is parsed.
_MAX_PAGES_AT_ONCE = 8
_CLIENT_STALL_SECONDS = 120
_LOGGED_NAMES = 5


class PypiDoor:
    """Answers the requests below `/pypi/`."""

    def __init__(self, *, registry: Registry, upstream: Upstream, reports: Reports, rules: PackageRules) -> None:
        self._registry = registry
        self._rules = rules
        self._upstream = upstream
        self._reports = reports
        self._page_slots = asyncio.Semaphore(_MAX_PAGES_AT_ONCE)

    async def answer(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Answer one GET or HEAD and settle `visit`.

        Raises:
            TurnedAway: the client is to get an error.
        """
        match parse_path(visit.path):
            case ProjectRequest(name=name):
                return await self._answer_project(request, visit, name)
            case FileRequest() as wanted:
                return await self._answer_file(request, visit, wanted)
            case None:
                raise Refused(
                    status=404,
                    rule="no such path",
                    advice="The PyPI door has /pypi/simple/<project>/ and the links on those pages, nothing else.",
                )

    async def _answer_project(self, request: web.BaseRequest, visit: Visit, name: str) -> web.Response:
        visit.host = self._registry.origins["index"].host
        _refuse(self._rules.refusal(name, None, None))
        async with self._page_slots:
            page = await self._fetch_index(name)
            if page is None:
                return _not_found(visit, "pypi index", f"PyPI has no project {name}.")
            as_html = wants_html(",".join(request.headers.getall("Accept", ["*/*"])))
            index, body = await asyncio.to_thread(self._rewrite, page, name, as_html)
        self._report_dropped(visit, index)
        visit.bytes = 0 if request.method == "HEAD" else len(body)
        visit.conclude("allowed", "pypi index", 200)
        # Spelt out instead of `content_type`, so that no charset is added to the JSON type.
        content_type = f"{HTML_TYPE}; charset=utf-8" if as_html else JSON_TYPE
        return web.Response(body=body, headers={"Content-Type": content_type, "Vary": "Accept"})

    async def _fetch_index(self, name: str) -> bytes | None:
        return await self._upstream.fetch_page(
            f"{self._registry.url('index')}/simple/{name}/", accept=JSON_TYPE, max_bytes=_MAX_INDEX_BYTES
        )

    def _read(self, page: bytes, name: str) -> ProjectIndex:
        try:
            return read_index(page, name=name, files_origin=self._registry.url("files"))
        except InvalidIndex as error:
            raise UpstreamFailed(
                status=502, rule="invalid index", advice=f"PyPI's page of {name} cannot be used: {error}."
            ) from error

    def _rewrite(self, page: bytes, name: str, as_html: bool) -> tuple[ProjectIndex, bytes]:  # noqa: FBT001  # to_thread passes by position
        index = without_refused(self._read(page, name), self._rules)
        return index, render_html(index) if as_html else render_json(index)

    def _report_dropped(self, visit: Visit, index: ProjectIndex) -> None:
        for reason in sorted({file.reason for file in index.dropped}):
            names = [file.filename for file in index.dropped if file.reason == reason]
            _log.warning(
                "files left out", sandbox=visit.sandbox, project=index.name, reason=reason,
                count=len(names), first=names[:_LOGGED_NAMES],
            )  # fmt: skip  # one line of fields reads better than eight
            dropped = Visit(
                sandbox=visit.sandbox, phase=visit.phase, uid=visit.uid,
                method=visit.method, path=visit.path, host=visit.host,
            )  # fmt: skip  # as above
            dropped.conclude("refused", f"{len(names)} files left out: {reason}", 200)
            self._reports.add(dropped.record())

    async def _check_rules(self, wanted: FileRequest) -> None:
        """A link may have been written by hand, or kept from before the rules: it is checked as the index is."""
        stored_path = wanted.stored_path.removesuffix(".metadata")
        filename = stored_filename(stored_path) or ""
        upload_time = None
        if self._rules.needs_release_times:
            name, _ = next(releases_of(filename))
            async with self._page_slots:
                page = await self._fetch_index(name)
                index = await asyncio.to_thread(self._read, page, name) if page is not None else None
            files = index.files if index is not None else ()
            upload_time = next((file.upload_time for file in files if file.path.endswith(f"/{stored_path}")), None)
        _refuse(file_refusal(self._rules, filename, upload_time))

    async def _answer_file(self, request: web.BaseRequest, visit: Visit, wanted: FileRequest) -> web.StreamResponse:
        visit.host = self._registry.origins["files"].host
        visit.digest = wanted.sha256
        await self._check_rules(wanted)
        url = f"{self._registry.url('files')}/{wanted.stored_path}"
        async with self._upstream.open_file(request.method, url) as source:
            if source is None:
                return _not_found(visit, "pypi file", "PyPI has no such file.")
            length = source.content_length
            if length is not None and length > _MAX_FILE_BYTES:
                raise Refused(
                    status=502, rule="file too large", advice=f"Files are limited to {_MAX_FILE_BYTES} bytes."
                )
            response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
            response.content_length = length
            visit.status = 200
            await response.prepare(request)
            if request.method == "HEAD":
                visit.conclude("allowed", "pypi file", 200)
                return response
            await _stream(request, response, visit, source)
            return response


async def _stream(request: web.BaseRequest, response: web.StreamResponse, visit: Visit, source: ClientResponse) -> None:
    """Pass the body on; the client gets the last piece only if the whole has the digest that it was promised."""
    try:
        async for chunk in _verified(source, visit.digest):
            await visit.allowance.spend(len(chunk))
            async with asyncio.timeout(_CLIENT_STALL_SECONDS):
                await response.write(chunk)
            visit.bytes += len(chunk)
        async with asyncio.timeout(_CLIENT_STALL_SECONDS):
            await response.write_eof()
    except _Mismatch as mismatch:
        _cut(request, visit, mismatch.rule)
    except UpstreamBrokeOff:
        _cut(request, visit, "registry broke off")
    except TimeoutError:
        _cut(request, visit, "client stalled")
    except ConnectionError:
        _cut(request, visit, "client closed")
    else:
        visit.conclude("allowed", "pypi file", 200)


class _Mismatch(Exception):
    """The artefact is not what the index promised."""

    def __init__(self, *, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


async def _verified(source: ClientResponse, sha256: str) -> AsyncIterator[bytes]:
    digest = hashlib.sha256()
    held = b""
    count = 0
    async for chunk in file_chunks(source):
        digest.update(chunk)
        count += len(chunk)
        if count > _MAX_FILE_BYTES:
            raise _Mismatch(rule="file too large")
        if held:
            yield held
        held = chunk
    if digest.hexdigest() != sha256:
        raise _Mismatch(rule="digest mismatch")
    if held:
        yield held


def _refuse(why: str | None) -> None:
    if why is not None:
        raise Refused(status=403, rule=f"policy: {why}", advice=f"the operator's package policy refuses {why}.")


def _cut(request: web.BaseRequest, visit: Visit, rule: str) -> None:
    visit.conclude("failed", rule, 200)
    if request.transport is not None:
        request.transport.abort()


def _not_found(visit: Visit, rule: str, advice: str) -> web.Response:
    visit.conclude("allowed", rule, 404)
    response = web.Response(status=404, text=f"Qila: {advice}\n")
    visit.bytes = 0 if visit.method == "HEAD" else len(advice) + len("Qila: \n")
    return response
