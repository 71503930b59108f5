"""PyPI: index pages rewritten to lead back to the mirror, and the artefacts that they name by digest."""

import asyncio

from services.executor.egress.ecosystems.no_rules import NO_RULES
from services.executor.egress.ecosystems.port import (
    Answer,
    Artefact,
    Ask,
    Digest,
    Document,
    LeftOut,
    Missing,
    PackageRules,
    Page,
    Source,
)
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
from services.executor.egress.ecosystems.pypi_paths import (
    METADATA_SUFFIX,
    PREFIX,
    FileRequest,
    ProjectRequest,
    parse_path,
)
from services.executor.egress.ecosystems.pypi_rules import POLICY, apply_rules, releases
from services.executor.egress.registries import Registry
from services.executor.egress.verdicts import Refused, UpstreamFailed

_MAX_INDEX_BYTES = 64 * 1024**2
_MAX_FILE_BYTES = 4 * 1024**3
_NAMED_FILES = 5


class Pypi:
    """The door below `/pypi/`."""

    prefix = PREFIX

    def __init__(self, *, registry: Registry, rules: PackageRules = NO_RULES) -> None:
        self._registry = registry
        self._rules = rules

    async def answer(self, ask: Ask, source: Source) -> Answer:
        """What stands at a path.

        Raises:
            Refused: no such path, or refused by the rules.
            TurnedAway: as `Source.page`.
        """
        match parse_path(ask.path):
            case ProjectRequest(name=name):
                return await self._project(name, source, as_html=wants_html(ask.accept))
            case FileRequest() as wanted:
                if self._rules is not NO_RULES:
                    await self._check_file(wanted, source)
                return Artefact(
                    url=f"{self._registry.url('files')}/{wanted.stored_path}",
                    rule="pypi file",
                    digest=Digest(algorithm="sha256", hex=wanted.sha256),
                    max_bytes=_MAX_FILE_BYTES,
                )
            case None:
                raise Refused(
                    status=404,
                    rule="no such path",
                    advice="The PyPI door has /pypi/simple/<project>/ and the links on those pages, nothing else.",
                )

    async def _project(self, name: str, source: Source, *, as_html: bool) -> Document | Missing:
        self._check_project(name)
        fetched = await source.page(self._page(name))
        if fetched is None:
            return Missing(rule="pypi index", advice=f"PyPI has no project {name}.")
        index, body = await asyncio.to_thread(self._rewrite, fetched.body, name, as_html)
        return Document(
            body=body,
            content_type=f"{HTML_TYPE}; charset=utf-8" if as_html else JSON_TYPE,
            rule="pypi index",
            vary_accept=True,
            left_out=_left_out(index),
        )

    async def _check_file(self, wanted: FileRequest, source: Source) -> None:
        """Refuse a file that is not in the index as the rules leave it: its URL may be known from elsewhere."""
        stored_path = wanted.stored_path.removesuffix(METADATA_SUFFIX)
        filename = stored_path.rpartition("/")[2]
        for name in dict.fromkeys(project for project, _ in releases(filename)):
            self._check_project(name)
            fetched = await source.page(self._page(name))
            if fetched is None:
                continue
            index = await asyncio.to_thread(self._read, fetched.body, name)
            if any(file.stored_path == stored_path for file in index.files):
                return
            reasons = [file.reason for file in index.dropped if file.filename == filename]
            if reasons:
                raise _refused(filename, reasons[0].removeprefix(POLICY))
        raise _refused(filename, "not in the index")

    def _check_project(self, name: str) -> None:
        reason = self._rules.refusal(name, None, None)
        if reason is not None:
            raise _refused(name, reason)

    def _page(self, name: str) -> Page:
        return Page(url=f"{self._registry.url('index')}/simple/{name}/", accept=JSON_TYPE, max_bytes=_MAX_INDEX_BYTES)

    def _read(self, page: bytes, name: str) -> ProjectIndex:
        try:
            index = read_index(page, name=name, files_origin=self._registry.url("files"))
        except InvalidIndex as error:
            raise UpstreamFailed(
                status=502, rule="invalid index", advice=f"PyPI's page of {name} cannot be used: {error}."
            ) from error
        return index if self._rules is NO_RULES else apply_rules(index, self._rules)

    def _rewrite(self, page: bytes, name: str, as_html: bool) -> tuple[ProjectIndex, bytes]:  # noqa: FBT001  # to_thread passes by position
        index = self._read(page, name)
        return index, render_html(index) if as_html else render_json(index)


def _refused(what: str, reason: str) -> Refused:
    return Refused(
        status=403, rule=f"{POLICY}{reason}", advice=f"the operator's package rules refuse {what}: {reason}."
    )


def _left_out(index: ProjectIndex) -> tuple[LeftOut, ...]:
    rows = []
    for reason in sorted({file.reason for file in index.dropped}):
        names = tuple(file.filename for file in index.dropped if file.reason == reason)
        rows.append(LeftOut(reason=reason, count=len(names), names=names[:_NAMED_FILES]))
    return tuple(rows)
