"""The mirror: finds the ecosystem that a path belongs to, asks it what stands there, and serves that."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import structlog
from aiohttp import web
from yarl import URL

from services.executor.egress.downloads import Downloads
from services.executor.egress.ecosystems.port import (
    Artefact,
    Ask,
    Digest,
    Document,
    Ecosystem,
    Fetched,
    LeftOut,
    Missing,
    Page,
)
from services.executor.egress.pages import Pages
from services.executor.egress.registries import Registry
from services.executor.egress.reports import Reports
from services.executor.egress.sending import send_followed, send_head, send_held
from services.executor.egress.turns import Turn, Turns
from services.executor.egress.verdicts import Refused, Visit

_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One registry behind the mirror: what stands where, and which hosts that may lead to."""

    ecosystem: Ecosystem
    registry: Registry


class Mirror:
    """Answers the requests of all sandboxes."""

    def __init__(self, *, branches: Iterable[Branch], pages: Pages, downloads: Downloads, reports: Reports) -> None:
        self._branches = {branch.ecosystem.prefix: branch for branch in branches}
        self._pages = pages
        self._downloads = downloads
        self._reports = reports
        self._turns = Turns()

    async def answer(self, request: web.BaseRequest, visit: Visit) -> web.StreamResponse:
        """Answer one GET or HEAD and settle `visit`.

        Raises:
            TurnedAway: the client is to get an error.
        """
        branch, path = self._route(visit.path)
        ask = Ask(path=path, accept=",".join(request.headers.getall("Accept", ["*/*"])))
        async with self._turns.take(visit.sandbox) as turn:
            source = _Source(pages=self._pages, registry=branch.registry, visit=visit, turn=turn)
            answer = await branch.ecosystem.answer(ask, source)
        match answer:
            case Document():
                self._report_left_out(visit, answer.left_out)
                return _document(visit, answer, is_stale=source.is_stale)
            case Artefact():
                return await self._answer_artefact(request, visit, answer, branch.registry)
            case Missing(rule=rule, advice=advice):
                return _missing(visit, rule, advice)

    def _route(self, path: str) -> tuple[Branch, str]:
        root, _, below = path.partition("/")
        prefix, slash, rest = below.partition("/")
        branch = self._branches.get(prefix)
        if root or not slash or branch is None:
            doors = ", ".join(f"/{prefix}/" for prefix in sorted(self._branches))
            raise Refused(status=404, rule="no such path", advice=f"there is no door at this path, only below {doors}.")
        return branch, f"/{rest}"

    async def _answer_artefact(
        self, request: web.BaseRequest, visit: Visit, artefact: Artefact, registry: Registry
    ) -> web.StreamResponse:
        visit.host = _host(artefact.url)
        visit.digest = _digest_text(artefact.digest)
        held = await self._downloads.kept(artefact)
        if held is not None:
            with held:
                visit.host = held.entry.host
                return await send_held(request, visit, artefact, held)
        if request.method == "HEAD":
            head = await self._downloads.head(artefact, registry)
            if head is None:
                return _missing_artefact(visit, artefact)
            visit.host = head.host
            return await send_head(request, visit, artefact, head.size)
        async with self._downloads.follow(artefact, registry) as follower:
            head = await follower.head()
            if head is None:
                return _missing_artefact(visit, artefact)
            visit.host = head.host
            return await send_followed(request, visit, artefact, follower, head.size)

    def _report_left_out(self, visit: Visit, rows: Iterable[LeftOut]) -> None:
        for row in rows:
            _log.warning(
                "files left out", sandbox=visit.sandbox, path=visit.path, reason=row.reason,
                count=row.count, first=row.names,
            )  # fmt: skip  # one line of fields reads better than six
            left_out = replace(visit)
            left_out.conclude("refused", f"{row.count} files left out: {row.reason}", 200)
            self._reports.add(left_out.record())


class _Source:
    """The registry, as the ecosystem sees it while it answers one request."""

    def __init__(self, *, pages: Pages, registry: Registry, visit: Visit, turn: Turn) -> None:
        self._pages = pages
        self._registry = registry
        self._visit = visit
        self._turn = turn
        self.is_stale = False

    async def page(self, page: Page) -> Fetched | None:
        """See `Source.page`; the record gets the host."""
        await self._turn.fetch()
        self._visit.host = _host(page.url)
        found = await self._pages.get(page, self._registry)
        if found is None:
            return None
        self._visit.host = found.host
        self.is_stale |= found.is_stale
        await self._turn.parse(len(found.body))
        return Fetched(body=found.body, last_modified=found.last_modified)


def _document(visit: Visit, answer: Document, *, is_stale: bool) -> web.Response:
    visit.bytes = 0 if visit.method == "HEAD" else len(answer.body)
    visit.conclude("allowed", f"{answer.rule} (kept)" if is_stale else answer.rule, 200)
    # As a header instead of `content_type`, so that no charset is added.
    headers = {"Content-Type": answer.content_type}
    if answer.vary_accept:
        headers["Vary"] = "Accept"
    return web.Response(body=answer.body, headers=headers)


def _missing(visit: Visit, rule: str, advice: str) -> web.Response:
    body = f"Qila: {advice}\n".encode()
    visit.conclude("allowed", rule, 404)
    visit.bytes = 0 if visit.method == "HEAD" else len(body)
    return web.Response(status=404, body=body, content_type="text/plain", charset="utf-8")


def _missing_artefact(visit: Visit, artefact: Artefact) -> web.Response:
    return _missing(visit, artefact.rule, "The registry has no such file.")


def _digest_text(digest: Digest | None) -> str:
    if digest is None:
        return ""
    return digest.hex if digest.algorithm == "sha256" else f"{digest.algorithm}:{digest.hex}"


def _host(url: str) -> str:
    return URL(url, encoded=True).host or ""
