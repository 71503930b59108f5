"""Maven's index pages, `maven-metadata.xml`: read as untrusted XML, rendered anew when something is left out.

An artifact's page lists versions and names the latest; a group's page lists the prefixes of its plugins.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError, XMLParser
from xml.sax.saxutils import escape

from services.executor.egress.ecosystems.maven_paths import is_artifact, is_version

# Only comments and CDATA may begin with `<!`: a document type is where entities, and with them bombs, come from.
_DECLARATION = re.compile(r"<!(?!--|\[CDATA\[)")
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<metadata>\n'
_DIGITS = re.compile(r"[0-9]{8,17}")


class InvalidMetadata(Exception):
    """The registry's page is not what Maven describes."""

    def __init__(self, *, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return self.problem


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A plugin and the short name that it is called by."""

    name: str
    prefix: str
    artifact: str


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """A page: of an artifact if it has `versions`, of a group if it has `plugins`, now and then both.

    The registry lists versions with the oldest first.
    """

    versions: tuple[str, ...]
    latest: str | None
    release: str | None
    last_updated: str | None
    plugins: tuple[Plugin, ...]
    unknown: tuple[str, ...]
    """Versions and plugins whose names are of no form that the door passes on."""


def read_metadata(page: bytes) -> Metadata:
    """Read a page.

    Raises:
        InvalidMetadata: no UTF-8, a document type or an entity declaration, no XML, or no metadata.
    """
    root = _parse(page)
    if root.tag != "metadata":
        raise InvalidMetadata(problem="no metadata")
    versions = [_text(element) for element in root.findall("versioning/versions/version")]
    plugins = [_plugin(element) for element in root.findall("plugins/plugin")]
    last_updated = _text(root.find("versioning/lastUpdated"))
    return Metadata(
        versions=tuple(dict.fromkeys(version for version in versions if is_version(version))),
        latest=_text(root.find("versioning/latest")) or None,
        release=_text(root.find("versioning/release")) or None,
        last_updated=last_updated if _DIGITS.fullmatch(last_updated) else None,
        plugins=tuple(plugin for plugin in plugins if is_artifact(plugin.artifact)),
        unknown=(
            *(version for version in versions if not is_version(version)),
            *(plugin.artifact for plugin in plugins if not is_artifact(plugin.artifact)),
        ),
    )


def _parse(page: bytes) -> Element:
    try:
        text = page.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InvalidMetadata(problem="no UTF-8") from error
    # UTF-16 without its mark is valid UTF-8 here, and the parser would find the mark-up that the next look does not.
    if "\0" in text:
        raise InvalidMetadata(problem="no UTF-8")
    if _DECLARATION.search(text):
        raise InvalidMetadata(problem="a document type or an entity declaration")
    parser = XMLParser()  # noqa: S314  # what makes XML dangerous is refused above
    try:
        parser.feed(text)
        root = parser.close()
    except (ParseError, ValueError) as error:
        raise InvalidMetadata(problem="no XML") from error
    assert isinstance(root, Element)
    return root


def _text(element: Element | None) -> str:
    return (element.text or "").strip() if element is not None else ""


def _plugin(element: Element) -> Plugin:
    return Plugin(
        name=_text(element.find("name")),
        prefix=_text(element.find("prefix")),
        artifact=_text(element.find("artifactId")),
    )


def render(
    metadata: Metadata, *, group: str, artifact: str, versions: Sequence[str], plugins: Iterable[Plugin]
) -> bytes:
    """A page of some of its versions and plugins; `latest` and `release` lead to the last of those versions."""
    body = [*_plugins(plugins)] if metadata.plugins else []
    if metadata.versions:
        body += [f"<groupId>{escape(group)}</groupId>", f"<artifactId>{escape(artifact)}</artifactId>"]
        body += _versioning(metadata, versions)
    return f"{_HEAD}{''.join(f'{line}{chr(10)}' for line in body)}</metadata>\n".encode()


def _versioning(metadata: Metadata, versions: Sequence[str]) -> Iterator[str]:
    yield "<versioning>"
    for tag, version in (("latest", metadata.latest), ("release", metadata.release)):
        if version is not None and versions:
            yield f"<{tag}>{escape(version if version in versions else versions[-1])}</{tag}>"
    yield "<versions>"
    yield from (f"<version>{escape(version)}</version>" for version in versions)
    yield "</versions>"
    if metadata.last_updated is not None:
        yield f"<lastUpdated>{metadata.last_updated}</lastUpdated>"
    yield "</versioning>"


def _plugins(plugins: Iterable[Plugin]) -> Iterator[str]:
    yield "<plugins>"
    for plugin in plugins:
        yield "<plugin>"
        yield f"<name>{escape(plugin.name)}</name>"
        yield f"<prefix>{escape(plugin.prefix)}</prefix>"
        yield f"<artifactId>{escape(plugin.artifact)}</artifactId>"
        yield "</plugin>"
    yield "</plugins>"
