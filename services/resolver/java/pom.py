"""What a POM says of dependencies, read from its XML alone: nothing that it would run is looked at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.java.coordinates import Coordinate, is_version
from services.resolver.java.declared import COMPILE, IMPORT, PROVIDED, RUNTIME, SYSTEM, TEST, Declaration
from services.resolver.java.xml_text import Element, parse_xml
from services.resolver.model import Notice, NoticeKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MANIFEST = "pom.xml"
SCOPES = frozenset({COMPILE, RUNTIME, PROVIDED, TEST, IMPORT, SYSTEM})
REFERENCE = re.compile(r"\$\{([^${}]{1,200})\}")
PLAIN = re.compile(r"[A-Za-z0-9_.*-]{1,200}")
MAX_ROUNDS = 10
MAX_REFERENCES = 20
MAX_VALUE = 2_000
IGNORED = (
    (("repositories",), "repositories: packages come from Maven Central, through Qila's mirror"),
    (("pluginRepositories",), "plugin repositories: no plugin is run"),
    (("build", "extensions"), "build extensions: no plugin is run"),
    (("distributionManagement",), "distribution management: nothing is deployed"),
)
RELEASE_PROPERTIES = ("maven.compiler.release", "maven.compiler.source", "maven.compiler.target", "java.version")


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """The POM that another one continues; `relative_path` is None where it is not said."""

    group: str
    artifact: str
    version: str
    relative_path: str | None
    line: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Pom:
    """One POM; texts may hold `${…}`. Group and version are empty where they are the parent's."""

    path: str
    group: str
    artifact: str
    version: str
    parent: Parent | None
    properties: Mapping[str, str]
    dependencies: tuple[Declaration, ...]
    managed: tuple[Declaration, ...]
    processors: tuple[Declaration, ...]
    modules: tuple[tuple[str, int], ...]
    main_class: str
    preview: bool
    release: tuple[str, int]
    source_directory: str
    test_directory: str
    notices: tuple[Notice, ...]

    @property
    def directory(self) -> str:
        """Where it lies."""
        return self.path.rpartition("/")[0]


def read_pom(path: str, content: bytes) -> Pom:
    """Read a POM; raises ManifestError with the line."""
    root = parse_xml(path, content)
    if root.name != "project":
        raise ManifestError(path=path, reason=f"is no POM: it begins with <{root.name[:80]}>", line=root.line)
    if not root.value("artifactId"):
        raise ManifestError(path=path, reason="has no <artifactId>", line=root.line)
    parts = [root, *_default_profiles(root)]
    properties = {item.name: item.text[:MAX_VALUE] for part in parts for item in _children(part, "properties")}
    plugins = [item for part in parts for item in _plugins(part)]
    return Pom(
        path=path,
        group=root.value("groupId"),
        artifact=root.value("artifactId"),
        version=root.value("version"),
        parent=_parent(path, root),
        properties=properties,
        dependencies=tuple(item for part in parts for item in _declarations(path, part.all("dependencies"))),
        managed=tuple(
            item for part in parts for item in _declarations(path, part.all("dependencyManagement", "dependencies"))
        ),
        processors=tuple(item for plugin in plugins for item in _processors(path, plugin)),
        modules=tuple((item.text, item.line) for part in parts for item in part.all("modules", "module")),
        main_class=properties.get("exec.mainClass", "") or _main_class(plugins),
        preview=any("--enable-preview" in text for plugin in plugins for text in _texts(plugin)),
        release=_release(root, plugins),
        source_directory=root.value("build", "sourceDirectory"),
        test_directory=root.value("build", "testSourceDirectory"),
        notices=tuple(_ignored(path, parts)),
    )


def interpolate(text: str, properties: Mapping[str, str]) -> str:
    """A text with what is known put in; what is not known stays as it is written, and what grows without end is cut."""
    for _ in range(MAX_ROUNDS if "${" in text else 0):
        changed = REFERENCE.sub(lambda match: properties.get(match[1], match[0]), text, count=MAX_REFERENCES)
        if changed == text:
            break
        text = changed[:MAX_VALUE]
        if len(text) == MAX_VALUE:
            break
    return text


def _children(element: Element, name: str) -> list[Element]:
    return [item for found in element.all(name) for item in found.children]


def _default_profiles(root: Element) -> list[Element]:
    profiles = root.all("profiles", "profile")
    return [item for item in profiles if item.value("activation", "activeByDefault") == "true"]


def _parent(path: str, root: Element) -> Parent | None:
    element = root.child("parent")
    if element is None:
        return None
    place = element.child("relativePath")
    parent = Parent(
        group=element.value("groupId"),
        artifact=element.value("artifactId"),
        version=element.value("version"),
        relative_path=None if place is None else place.text,
        line=element.line,
    )
    if not parent.group or not parent.artifact or not parent.version:
        raise ManifestError(path=path, reason="<parent> needs groupId, artifactId and version", line=element.line)
    return parent


def _declarations(path: str, lists: list[Element]) -> Iterator[Declaration]:
    for element in (item for found in lists for item in found.children if item.name == "dependency"):
        yield _declaration(path, element)


def _declaration(path: str, element: Element) -> Declaration:
    group, artifact = element.value("groupId"), element.value("artifactId")
    if not group or not artifact:
        raise ManifestError(path=path, reason="a dependency needs groupId and artifactId", line=element.line)
    scope = element.value("scope") or COMPILE
    if scope not in SCOPES and "${" not in scope:
        reason = f"unknown scope {scope[:80]!r}; Maven has {', '.join(sorted(SCOPES))}"
        raise ManifestError(path=path, reason=reason, line=element.line)
    coordinate = Coordinate(
        group=group,
        artifact=artifact,
        version=element.value("version"),
        classifier=element.value("classifier"),
        extension=element.value("type") or "jar",
    )
    _check(path, element.line, coordinate)
    exclusions = element.all("exclusions", "exclusion")
    return Declaration(
        coordinate=coordinate,
        path=path,
        line=element.line,
        scope=scope,
        optional=element.value("optional") == "true",
        exclusions=tuple((item.value("groupId") or "*", item.value("artifactId") or "*") for item in exclusions),
    )


def _check(path: str, line: int, coordinate: Coordinate) -> None:
    """Raise ManifestError for what no repository can hold; what refers to a property is seen when it is put in."""
    parts = (coordinate.group, coordinate.artifact, coordinate.classifier, coordinate.extension)
    for text in parts:
        if text and not PLAIN.fullmatch(REFERENCE.sub("x", text)):
            raise ManifestError(path=path, reason=f"{text[:80]!r} is no name of a package", line=line)
    version = REFERENCE.sub("1", coordinate.version)
    if version and not is_version(version):
        raise ManifestError(path=path, reason=f"{coordinate.version[:80]!r} is no version", line=line)


def _plugins(part: Element) -> list[Element]:
    return [*part.all("build", "plugins", "plugin"), *part.all("build", "pluginManagement", "plugins", "plugin")]


def _processors(path: str, plugin: Element) -> Iterator[Declaration]:
    """What javac's plugin gets as annotation processors; plugins themselves are not run, javac is."""
    if plugin.value("artifactId") != "maven-compiler-plugin":
        return
    for element in plugin.all("configuration", "annotationProcessorPaths"):
        for item in element.children:
            coordinate = Coordinate(
                group=item.value("groupId"), artifact=item.value("artifactId"), version=item.value("version")
            )
            _check(path, item.line, coordinate)
            if coordinate.group and coordinate.artifact:
                yield Declaration(coordinate=coordinate, path=path, line=item.line, scope=PROVIDED)


def _main_class(plugins: list[Element]) -> str:
    for plugin in plugins:
        for element in _walk(plugin):
            if element.name in {"mainClass", "start-class"} and element.text:
                return element.text
    return ""


def _texts(plugin: Element) -> Iterator[str]:
    if plugin.value("artifactId") == "maven-compiler-plugin":
        yield from (element.text for element in _walk(plugin))


def _walk(element: Element) -> Iterator[Element]:
    pending = [element]
    while pending:
        current = pending.pop()
        yield current
        pending.extend(reversed(current.children))


def _release(root: Element, plugins: list[Element]) -> tuple[str, int]:
    """The version of Java that the POM asks for, and where."""
    for plugin in plugins:
        if plugin.value("artifactId") == "maven-compiler-plugin":
            for name in ("release", "source", "target"):
                for element in plugin.all("configuration", name):
                    return element.text, element.line
    for name in RELEASE_PROPERTIES:
        for element in root.all("properties", name):
            return element.text, element.line
    return "", 0


def _ignored(path: str, parts: list[Element]) -> Iterator[Notice]:
    for names, detail in IGNORED:
        for element in (item for part in parts for item in part.all(*names)):
            if element.children:
                yield Notice(
                    kind=NoticeKind.SETTING_IGNORED, path=path, line=element.line, subject=names[-1], detail=detail
                )
