"""The mirror's side of an ecosystem at its simplest: no streaming, no bounds, everything kept in memory."""

import datetime
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import aiohttp
from aiohttp import web
from yarl import URL

from services.executor.egress.ecosystems.port import Artefact, Ask, Document, Ecosystem, Fetched, Missing, Page
from services.executor.egress.upstream import tls_context
from services.executor.egress.verdicts import TurnedAway, UpstreamFailed


@dataclass(frozen=True, kw_only=True)
class NaiveRules:
    """Denies packages, and releases, by name."""

    packages: frozenset[str] = frozenset()
    releases: frozenset[tuple[str, str]] = frozenset()
    needs_release_times: bool = False

    def refusal(self, name: str, version: str | None, released: datetime.datetime | None) -> str | None:
        denied = name in self.packages or (version is not None and (name, version) in self.releases)
        return f"{name}: denied" if denied else None


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One request and what came of it."""

    path: str
    status: int
    rule: str


@dataclass
class NaiveMirror:
    """Answers for some ecosystems with what the real registries say."""

    ecosystems: Iterable[Ecosystem]
    answered: list[Answered] = field(default_factory=list)
    kept: dict[str, Fetched] = field(default_factory=dict)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        response, rule = await self._answer(request)
        self.answered.append(Answered(path=request.raw_path, status=response.status, rule=rule))
        return response

    async def _answer(self, request: web.BaseRequest) -> tuple[web.Response, str]:
        for ecosystem in self.ecosystems:
            prefix = f"/{ecosystem.prefix}"
            if request.method in {"GET", "HEAD"} and request.raw_path.startswith(f"{prefix}/"):
                ask = Ask(path=request.raw_path.removeprefix(prefix))
                try:
                    return await self._answer_ecosystem(ecosystem, ask)
                except TurnedAway as error:
                    return web.Response(status=error.status, text=f"Qila: {error.advice}\n"), error.rule
        return web.Response(status=404), "no such path"

    async def _answer_ecosystem(self, ecosystem: Ecosystem, ask: Ask) -> tuple[web.Response, str]:
        match await ecosystem.answer(ask, self):
            case Document() as document:
                headers = {"Content-Type": document.content_type}
                return web.Response(body=document.body, headers=headers), document.rule
            case Missing() as missing:
                return web.Response(status=404, text=f"Qila: {missing.advice}\n"), missing.rule
            case Artefact() as artefact:
                found = await self.page(Page(url=artefact.url, headers=artefact.headers))
                if found is None:
                    return web.Response(status=404), artefact.rule
                if artefact.digest is not None:
                    digest = hashlib.new(artefact.digest.algorithm, found.body).hexdigest()
                    assert digest == artefact.digest.hex
                return web.Response(body=found.body, headers={"Content-Type": artefact.content_type}), artefact.rule

    async def page(self, page: Page) -> Fetched | None:
        if page.url in self.kept:
            return self.kept[page.url]
        connector = aiohttp.TCPConnector(ssl=tls_context())
        url = URL(page.url, encoded=True)
        try:
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.get(url, headers=dict(page.headers)) as response,
            ):
                if response.status in {404, 410}:
                    return None
                response.raise_for_status()
                modified = response.headers.get("Last-Modified")
                fetched = Fetched(
                    body=await response.read(),
                    last_modified=parsedate_to_datetime(modified) if modified else None,
                )
        except aiohttp.ClientError as error:
            raise UpstreamFailed(status=502, rule="registry error", advice=str(error)) from error
        if page.immutable:
            self.kept[page.url] = fetched
        return fetched
