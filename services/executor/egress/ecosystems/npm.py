"""The npm door: packuments rewritten to lead back here, artefacts held against their digests, package rules applied."""

import asyncio
from collections.abc import Callable

from services.executor.egress.ecosystems.npm_memory import PackumentMemory
from services.executor.egress.ecosystems.npm_packument import (
    ABBREVIATED_TYPE,
    FULL_TYPE,
    Form,
    InvalidPackument,
    Packument,
    PackumentReader,
    render_packument,
    render_tags,
    wants_abbreviated,
)
from services.executor.egress.ecosystems.npm_paths import (
    ManifestRequest,
    NpmRequest,
    PackumentRequest,
    TagsRequest,
    TarballRequest,
    packument_path,
    parse_path,
    tarball_path,
)
from services.executor.egress.ecosystems.npm_rules import check_package, check_release, left_out, permit
from services.executor.egress.ecosystems.port import (
    Answer,
    Artefact,
    Ask,
    Document,
    Missing,
    PackageRules,
    Page,
    Source,
)
from services.executor.egress.registries import Registry
from services.executor.egress.verdicts import Refused, UpstreamFailed

# Where a sandbox's package managers find this door. They need whole URLs, and follow them as they are.
DEFAULT_BASE = "http://127.0.0.1:7480/npm"

# The largest full packuments have some tens of megabytes.
_MAX_PACKUMENT_BYTES = 100 * 1024**2
# A page of the largest size costs a few times that while it is read.
_MAX_PAGES_AT_ONCE = 8
_MAX_TARBALL_BYTES = 4 * 1024**3
_REMEMBERED_RELEASES = 200_000
_RULES = {
    PackumentRequest: "npm packument",
    ManifestRequest: "npm manifest",
    TagsRequest: "npm dist-tags",
    TarballRequest: "npm tarball",
}


class Npm:
    """Answers the requests below `/npm/`. `base` is what clients put before those paths, without a slash at its end."""

    def __init__(self, *, registry: Registry, rules: PackageRules, base: str = DEFAULT_BASE) -> None:
        self._origin = registry.url("registry")
        self._rules = rules
        self._reader = PackumentReader(origin=self._origin, base=base)
        self._page_slots = asyncio.Semaphore(_MAX_PAGES_AT_ONCE)
        self._memory = PackumentMemory(max_releases=_REMEMBERED_RELEASES)

    @property
    def prefix(self) -> str:
        """The first part of the paths."""
        return "npm"

    async def answer(self, ask: Ask, source: Source) -> Answer:
        """What stands at a path.

        Raises:
            Refused: no such path, or the operator's rules refuse the package.
            TurnedAway: the registry cannot be asked, or what it says cannot be used.
        """
        wanted = parse_path(ask.path)
        if wanted is None:
            raise Refused(
                status=404,
                rule="no such path",
                advice="The npm door has packages, their versions, tags and tarballs to read, nothing else.",
            )
        check_package(self._rules, wanted.name)
        match wanted:
            case PackumentRequest():
                form: Form = "abbreviated" if wants_abbreviated(ask.accept) else "full"
                return await self._answer(source, wanted, form, lambda page: self._packument(page, form))
            case ManifestRequest(version=version):
                return await self._answer(source, wanted, "full", lambda page: self._manifest(page, version))
            case TagsRequest():
                return await self._answer(source, wanted, "releases", self._tags)
            case TarballRequest(file=file):
                return await self._answer(source, wanted, "releases", lambda page: self._tarball(page, file))

    async def _answer(
        self, source: Source, wanted: NpmRequest, form: Form, make: Callable[[Packument], Answer]
    ) -> Answer:
        """Fetch the package's page and make the answer of it in a thread: of a large one that takes a second."""
        is_full = form == "full" or self._rules.needs_release_times
        page = Page(
            url=f"{self._origin}{packument_path(wanted.name)}",
            accept=FULL_TYPE if is_full else ABBREVIATED_TYPE,
            max_bytes=_MAX_PACKUMENT_BYTES,
        )
        rule = _RULES[type(wanted)]
        async with self._page_slots:
            fetched = await source.page(page)
            if fetched is None:
                return Missing(rule=rule, advice=f"npm has no package {wanted.name}.")
            packument = await asyncio.to_thread(self._read, fetched.body, wanted.name, form)
            if packument.is_unpublished:
                return Missing(rule=rule, advice=f"The package {wanted.name} was removed from npm.")
            return await asyncio.to_thread(make, packument)

    def _read(self, page: bytes, name: str, form: Form) -> Packument:
        packument = self._memory.get(name, page) if form == "releases" else None
        if packument is not None:
            return packument
        try:
            packument = self._reader.read(page, name=name, form=form)
        except InvalidPackument as error:
            raise UpstreamFailed(
                status=502, rule="invalid index", advice=f"npm's page of {name} cannot be used: {error}."
            ) from error
        if form == "releases":
            self._memory.put(page, packument)
        return packument

    def _packument(self, packument: Packument, form: Form) -> Document:
        permitted = permit(self._rules, packument)
        return Document(
            body=render_packument(packument, versions=permitted.versions, tags=permitted.tags, form=form),
            content_type=ABBREVIATED_TYPE if form == "abbreviated" else FULL_TYPE,
            rule="npm packument",
            vary_accept=True,
            left_out=left_out(packument, permitted),
        )

    def _manifest(self, packument: Packument, version_or_tag: str) -> Answer:
        version = version_or_tag
        if version not in packument.releases:
            version = permit(self._rules, packument).tags.get(version_or_tag, version_or_tag)
        release = packument.releases.get(version)
        if release is None:
            return Missing(rule="npm manifest", advice=f"npm has no {packument.name}@{version_or_tag}.")
        check_release(self._rules, packument, version)
        return Document(body=release.manifest, content_type=FULL_TYPE, rule="npm manifest")

    def _tags(self, packument: Packument) -> Document:
        tags = permit(self._rules, packument).tags
        return Document(body=render_tags(tags), content_type=FULL_TYPE, rule="npm dist-tags")

    def _tarball(self, packument: Packument, file: str) -> Answer:
        release = packument.release_of(file)
        if release is None:
            return Missing(rule="npm tarball", advice=f"npm's page of {packument.name} names no file {file}.")
        check_release(self._rules, packument, release.version)
        return Artefact(
            url=f"{self._origin}{tarball_path(packument.name, release.file)}",
            rule="npm tarball",
            digest=release.digest,
            max_bytes=_MAX_TARBALL_BYTES,
        )
