"""The Maven door: the repository of released artifacts, each held against the checksum that lies beside it."""

import asyncio
import datetime
import hashlib
import re

from services.executor.egress.ecosystems.maven_metadata import InvalidMetadata, Metadata, read_metadata, render
from services.executor.egress.ecosystems.maven_paths import (
    FileRequest,
    MetadataRequest,
    SnapshotRequest,
    parse_path,
    version_path,
)
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
from services.executor.egress.ecosystems.releases import account, refuse_package, refuse_release, sift
from services.executor.egress.registries import Registry
from services.executor.egress.verdicts import Refused, UpstreamFailed

_ROOT = "maven2"
_XML = "text/xml"
_TEXT = "text/plain; charset=utf-8"
_MAX_METADATA_BYTES = 2 << 20
_MAX_POM_BYTES = 4 << 20
_MAX_SIBLING_BYTES = 64 << 10
# A checksum file is the digest, or a line of `sha1sum`, or, among the oldest, one of `openssl`.
_SHA1 = re.compile(rb"(?:[^\n]{0,512}=)?\s*(?P<hex>[0-9A-Fa-f]{40})(?:\s[^\n]{0,512})?\s*")


class MavenCentral:
    """Answers what is asked below `/maven/`."""

    prefix = "maven"

    def __init__(self, *, registry: Registry, rules: PackageRules) -> None:
        self._root = f"{registry.url('central')}/{_ROOT}"
        self._rules = rules

    async def answer(self, ask: Ask, source: Source) -> Answer:
        """What stands at a path of the repository.

        Raises:
            Refused: no path of a release's file or of an index, or the package rules refuse the package or the version.
            TurnedAway: as `Source.page`.
        """
        match parse_path(ask.path):
            case MetadataRequest() as wanted:
                return await self._metadata(wanted, source)
            case FileRequest(sibling=True) as wanted:
                return await self._sibling(wanted, source)
            case FileRequest() as wanted:
                return await self._file(wanted, source)
            case SnapshotRequest():
                raise Refused(
                    status=404,
                    rule="snapshot",
                    advice="Maven Central has releases only: name one instead of -SNAPSHOT.",
                )
            case None:
                raise Refused(
                    status=404,
                    rule="no such path",
                    advice="The Maven door has maven-metadata.xml, and released versions' files under their own names.",
                )

    async def _metadata(self, wanted: MetadataRequest, source: Source) -> Answer:
        page = await source.page(Page(url=f"{self._root}/{wanted.path}", max_bytes=_MAX_METADATA_BYTES))
        if page is None:
            return Missing(rule="maven metadata", advice=f"Maven Central has no {wanted.path}.")
        try:
            metadata = await asyncio.to_thread(read_metadata, page.body)
        except InvalidMetadata as error:
            raise UpstreamFailed(
                status=502, rule="invalid index", advice=f"Maven Central's {wanted.path} cannot be used: {error}."
            ) from error
        body, left_out = await self._under_rules(wanted, metadata, page.body, source)
        if wanted.checksum is None:
            return Document(body=body, content_type=_XML, rule="maven metadata", left_out=left_out)
        # Of what is served here, which need not be what Central has the checksum of.
        digest = hashlib.new(wanted.checksum, body, usedforsecurity=False).hexdigest()
        return Document(body=digest.encode(), content_type=_TEXT, rule="maven metadata checksum")

    async def _under_rules(
        self, wanted: MetadataRequest, metadata: Metadata, body: bytes, source: Source
    ) -> tuple[bytes, tuple[LeftOut, ...]]:
        """The page as it came if nothing has to be left out of it, else a new one."""
        left_out = account((name, "name of an unknown form") for name in metadata.unknown)
        versions: tuple[str, ...] = ()
        if metadata.versions:
            name = wanted.artifact
            refuse_package(self._rules, name)
            sifted = await sift(
                self._rules, name, metadata.versions[::-1], lambda version: self._release_time(name, version, source)
            )
            versions = sifted.kept[::-1]
            left_out += sifted.left_out
        refused = {
            plugin.artifact: why
            for plugin in metadata.plugins
            if (why := self._rules.refusal(f"{wanted.group}:{plugin.artifact}", None, None)) is not None
        }
        left_out += account((artifact, f"policy: {why}") for artifact, why in refused.items())
        if not left_out:
            return body, ()
        plugins = [plugin for plugin in metadata.plugins if plugin.artifact not in refused]
        group, artifact = ".".join(wanted.parts[:-1]), wanted.parts[-1]
        return render(metadata, group=group, artifact=artifact, versions=versions, plugins=plugins), left_out

    async def _sibling(self, wanted: FileRequest, source: Source) -> Answer:
        await self._refuse(wanted, source)
        page = await source.page(self._page(wanted.path, _MAX_SIBLING_BYTES))
        if page is None:
            return _missing(wanted.path)
        return Document(body=page.body, content_type=_TEXT, rule="maven checksum")

    async def _file(self, wanted: FileRequest, source: Source) -> Answer:
        await self._refuse(wanted, source)
        checksum = await source.page(self._page(f"{wanted.path}.sha1", _MAX_SIBLING_BYTES))
        if checksum is None:
            # Central has a SHA-1 beside every file. Whatever lacks one is not passed on unverified: it is not there.
            return _missing(wanted.path)
        match = _SHA1.fullmatch(checksum.body)
        if match is None:
            raise UpstreamFailed(
                status=502, rule="invalid checksum", advice=f"Maven Central's {wanted.path}.sha1 is no checksum."
            )
        digest = Digest(algorithm="sha1", hex=match["hex"].decode().lower())
        return Artefact(url=f"{self._root}/{wanted.path}", rule="maven file", digest=digest)

    async def _refuse(self, wanted: FileRequest, source: Source) -> None:
        await refuse_release(
            self._rules, wanted.name, wanted.version, lambda version: self._release_time(wanted.name, version, source)
        )

    async def _release_time(self, name: str, version: str, source: Source) -> datetime.datetime | None:
        """When the version's POM was put there, which is the only time that Central tells."""
        group, _, artifact = name.partition(":")
        path = f"{version_path(group, artifact, version)}/{artifact}-{version}.pom"
        page = await source.page(self._page(path, _MAX_POM_BYTES))
        return None if page is None else page.last_modified

    def _page(self, path: str, max_bytes: int) -> Page:
        """A page of a released version, which never changes."""
        return Page(url=f"{self._root}/{path}", max_bytes=max_bytes, immutable=True)


def _missing(path: str) -> Missing:
    return Missing(rule="maven file", advice=f"Maven Central has no {path} with a checksum beside it.")
