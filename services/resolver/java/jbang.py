"""JBang's lines: what a single file says of its dependencies by itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.java.coordinates import NEWEST, is_valid, parse_coordinate
from services.resolver.java.declared import IMPORT, Declaration
from services.resolver.java.gradle_versions import plain_version
from services.resolver.java.release import check_release
from services.resolver.model import Notice, NoticeKind
from services.resolver.paths import join, normal

if TYPE_CHECKING:
    from collections.abc import Iterator

# Nothing is given back, so that no line is looked at twice.
LINE = re.compile(r"^//(?P<word>[A-Z_]{3,20}+)[ \t]++(?P<rest>[^\n]{1,2000}+)$", re.MULTILINE)
RELEASE = re.compile(r"\d+")
MAX_SOURCES = 100
SEPARATOR = re.compile(r"[\s,]+")
IGNORED = {
    "REPOS": "repositories: packages come from Maven Central, through Qila's mirror",
    "JAVA_OPTIONS": "options of the JVM are not taken from a program",
    "RUNTIME_OPTIONS": "options of the JVM are not taken from a program",
    "JAVAAGENT": "agents are not loaded",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Directives:
    """What the lines of one file say."""

    dependencies: tuple[Declaration, ...] = ()
    managed: tuple[Declaration, ...] = ()
    sources: tuple[str, ...] = ()
    main_class: str = ""
    preview: bool = False
    notices: tuple[Notice, ...] = ()


def read_directives(path: str, content: bytes, release: int) -> Directives:
    """Read the lines for a sandbox with this release of Java; raises ManifestError with the line."""
    text = content.decode("utf-8", "replace").replace("\r\n", "\n")
    dependencies: list[Declaration] = []
    managed: list[Declaration] = []
    sources: list[str] = []
    notices: list[Notice] = []
    main_class, preview = "", False
    for line, word, rest in _lines(text):
        if word == "DEPS":
            for item in _dependencies(path, line, rest):
                (managed if item.scope == IMPORT else dependencies).append(item)
        elif word == "SOURCES":
            sources += [_source(path, line, item) for item in SEPARATOR.split(rest.strip()) if item]
            if len(sources) > MAX_SOURCES:
                raise ManifestError(path=path, reason=f"//SOURCES names more than {MAX_SOURCES} patterns", line=line)
        elif word == "JAVA":
            match = RELEASE.match(rest)
            check_release(path, line, match[0] if match else "", release)
        elif word == "MAIN":
            main_class = rest.strip()
        elif word in {"JAVAC_OPTIONS", "COMPILE_OPTIONS", "PREVIEW"}:
            preview = preview or word == "PREVIEW" or "--enable-preview" in rest
        elif word in IGNORED:
            notices.append(
                Notice(kind=NoticeKind.SETTING_IGNORED, path=path, line=line, subject=word, detail=IGNORED[word])
            )
    return Directives(
        dependencies=tuple(dependencies),
        managed=tuple(managed),
        sources=tuple(sources),
        main_class=main_class,
        preview=preview or "\n//PREVIEW" in f"\n{text}",
        notices=tuple(notices),
    )


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    line, position = 1, 0
    for match in LINE.finditer(text):
        line += text.count("\n", position, match.start())
        position = match.start()
        yield line, match["word"], match["rest"]


def _dependencies(path: str, line: int, rest: str) -> Iterator[Declaration]:
    for item in SEPARATOR.split(rest.partition(" //")[0].strip()):
        if not item:
            continue
        found = parse_coordinate(item)
        # As in a script of Gradle: `+` is no version that `parse_coordinate` knows.
        if found is None:
            name, _, version = item.rpartition(":")
            found = parse_coordinate(f"{name}:{plain_version(version)}")
        if found is None or not is_valid(found):
            reason = f"{item[:100]!r} is not written group:artifact:version"
            raise ManifestError(path=path, reason=reason, line=line)
        if found.extension == "pom":
            yield Declaration(coordinate=found, path=path, line=line, scope=IMPORT)
        else:
            version = found.version or NEWEST
            yield Declaration(coordinate=replace(found, version=version), path=path, line=line)


def _source(path: str, line: int, name: str) -> str:
    place = normal(join(path.rpartition("/")[0], name))
    if place is None:
        raise ManifestError(path=path, reason=f"//SOURCES {name[:100]} leads outside the workspace", line=line)
    return place
