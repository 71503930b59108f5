"""What the sandbox's Gradle said of a build, as a build that was read without running it.

A build can make it say anything: whatever it says is held against the grammar of coordinates and paths, and bounded.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.resolver.errors import ManifestError
from services.resolver.java.coordinates import NAME, Coordinate, is_valid, parse_coordinate
from services.resolver.java.declared import COMPILE, PROVIDED, RUNTIME, TEST, Declaration, Declared, PomFile
from services.resolver.java.gradle import management, pinned
from services.resolver.java.gradle_versions import plain_version
from services.resolver.java.pom_writer import OWN, write_pom
from services.resolver.model import Notice, NoticeKind
from services.resolver.paths import join, normal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from services.resolver.java.gradle import GradleWorkspace
    from services.resolver.java.gradle_question import Question

MAX_BYTES = 512 * 1024
FORMAT = 1
MAX_PROJECTS = 200
MAX_ENTRIES = 2_000
MAX_TEXT = 500
CLASS = re.compile(r"(?:[A-Za-z_$][\w$]{0,199}(?:\.[A-Za-z_$][\w$]{0,199}){0,30})?", re.ASCII)
PATH = re.compile(r":(?:[^:\x00-\x1f/\\]{1,200}(?::[^:\x00-\x1f/\\]{1,200}){0,20})?")
DIRECTORY = re.compile(r"[^\x00-\x1f\\:]{0,500}")
ANY = re.compile(r"[\w.-]{1,200}|\*", re.ASCII)
COMPILING, RUNNING = "compileClasspath", "runtimeClasspath"
COMPILING_TESTS, RUNNING_TESTS, PROCESSING = "testCompileClasspath", "testRuntimeClasspath", "annotationProcessor"


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """What one class path of a project is made of: exclusions by coordinate, and paths of other projects."""

    dependencies: Mapping[Coordinate, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    projects: tuple[str, ...] = ()
    forced: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """One project of a build; directories are relative to the build's root, those of sources too."""

    path: str
    directory: str
    main_class: str
    sources: tuple[str, ...]
    test_sources: tuple[str, ...]
    configurations: Mapping[str, Configuration]

    def of(self, name: str) -> Configuration:
        """A class path; empty if the project has none of that name."""
        return self.configurations.get(name, Configuration())


def declared_by(workspace: GradleWorkspace, question: Question, answer: bytes, near: str, *, tests: bool) -> Declared:
    """What the project of a build declares in which a directory of the workspace lies, with those that it needs.

    Raises ManifestError for an answer that is none, LockError for a lockfile beside the build.
    """
    script = question.cause.path
    projects = read_answer(answer, script)
    own = _project_of(projects, question.root, near, script)
    needed = _with_needed(projects, own, script, tests=tests)
    directory = join(question.root, own.directory)
    found = [item for project in needed for item in _declarations(project, script, with_tests=project is own)]
    forced = {name: version for name in (COMPILING, RUNNING) for name, version in own.of(name).forced.items()}
    pins, locks, drift = workspace.pins_of(directory, question.root, found, tests=tests)
    fixed = {**forced, **pins}
    dependencies = [pinned(item, fixed) for item in found]
    managed = list(management(fixed, {item.coordinate.name for item in dependencies}))
    return Declared(
        paths=tuple(dict.fromkeys([*_scripts_of(question, projects, needed), *locks])),
        directory=directory,
        dependencies=tuple(dependencies),
        poms=(PomFile(id=OWN, content=write_pom(OWN, dependencies, managed)),),
        highest=True,
        local=tuple(join(question.root, project.directory) for project in needed if project is not own),
        main_class=own.main_class,
        source_directory=_single(own, own.sources, "src/main/java"),
        test_directory=_single(own, own.test_sources, "src/test/java"),
        notices=(_told(question), *drift),
        pins=pins,
    )


def read_answer(content: bytes, script: str) -> dict[str, Project]:
    """The projects of an answer by their paths; raises ManifestError, which names the script."""
    if len(content) > MAX_BYTES:
        raise _refused(script, f"it has {len(content)} bytes, above the limit of {MAX_BYTES}")
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _refused(script, "it is no JSON in UTF-8, or nested too deep") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _refused(script, f"it is not in format {FORMAT}")
    reader = _Reader(script)
    found: dict[str, Project] = {}
    for item in reader.entries(document.get("projects"), "projects", MAX_PROJECTS):
        project = reader.project(item)
        if project.path in found:
            raise _refused(script, f"the project {project.path!r} is there twice")
        found[project.path] = project
    return found


class _Reader:
    def __init__(self, script: str) -> None:
        self._script = script

    def project(self, entry: Any) -> Project:
        path = self._text(entry, "path", PATH)
        configurations = entry.get("configurations")
        if not isinstance(configurations, dict):
            raise _refused(self._script, f"configurations of {path!r} must be an object")
        names = (COMPILING, RUNNING, COMPILING_TESTS, RUNNING_TESTS, PROCESSING)
        return Project(
            path=path,
            directory=self._directory(entry.get("directory")),
            main_class=self._text(entry, "mainClass", CLASS),
            sources=tuple(self._directories(entry.get("sources"))),
            test_sources=tuple(self._directories(entry.get("testSources"))),
            configurations={
                name: self._configuration(configurations[name]) for name in names if name in configurations
            },
        )

    def _configuration(self, entry: Any) -> Configuration:
        if not isinstance(entry, dict):
            raise _refused(self._script, "a configuration must be an object")
        forced = [self._coordinate_of(item) for item in self.entries(entry.get("forced"), "forced", MAX_ENTRIES)]
        return Configuration(
            dependencies=dict(
                self._dependency(item) for item in self.entries(entry.get("dependencies"), "dependencies", MAX_ENTRIES)
            ),
            projects=tuple(
                self._checked(item, "projects", PATH)
                for item in self.entries(entry.get("projects"), "projects", MAX_PROJECTS)
            ),
            forced={item.name: item.version for item in forced},
        )

    def _dependency(self, entry: Any) -> tuple[Coordinate, tuple[tuple[str, str], ...]]:
        group, name = self._text(entry, "group", NAME), self._text(entry, "name", NAME)
        version = entry.get("version", "")
        coordinate = Coordinate(
            group=group,
            artifact=name,
            version=plain_version(version) if isinstance(version, str) and len(version) <= MAX_TEXT else "?",
            classifier=str(entry.get("classifier") or ""),
            extension=str(entry.get("extension") or "jar"),
        )
        if not is_valid(coordinate):
            raise _refused(self._script, f"{coordinate.specifier[:100]!r} is not written group:artifact:version")
        exclusions = self.entries(entry.get("exclusions", []), "exclusions", MAX_PROJECTS)
        return coordinate, tuple(
            (self._text(item, "group", ANY), self._text(item, "module", ANY)) for item in exclusions
        )

    def _coordinate_of(self, value: Any) -> Coordinate:
        found = parse_coordinate(value) if isinstance(value, str) and len(value) <= MAX_TEXT else None
        if found is None or not found.version:
            raise _refused(self._script, f"{str(value)[:100]!r} is not written group:artifact:version")
        return found

    def _directories(self, value: Any) -> Iterator[str]:
        """Those that lie in the build; a build may well have others."""
        for item in self.entries(value, "sources", MAX_PROJECTS):
            if isinstance(item, str) and DIRECTORY.fullmatch(item) and normal(item) is not None:
                yield normal(item) or ""

    def _directory(self, value: Any) -> str:
        text = self._checked(value, "directory", DIRECTORY)
        found = normal(text) if text else ""
        if found is None:
            raise _refused(self._script, f"the directory {text[:100]!r} lies outside the build")
        return found

    def _text(self, entry: Any, key: str, pattern: re.Pattern[str]) -> str:
        if not isinstance(entry, dict):
            raise _refused(self._script, f"what has a {key} must be an object")
        return self._checked(entry.get(key), key, pattern)

    def _checked(self, value: Any, key: str, pattern: re.Pattern[str]) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _refused(self._script, f"{key} is not valid: {str(value)[:100]!r}")
        return value

    def entries(self, value: Any, key: str, limit: int) -> list[Any]:
        """A list within its bound."""
        if not isinstance(value, list) or len(value) > limit:
            raise _refused(self._script, f"{key} must be a list of at most {limit}")
        return value


def _project_of(projects: Mapping[str, Project], root: str, near: str, script: str) -> Project:
    """The deepest one that holds a directory of the workspace."""
    holding = _holder(projects, root, near)
    if holding is None:
        raise _refused(script, f"none of its projects holds {near or '.'}: include it in settings.gradle")
    return holding


def _holder(projects: Mapping[str, Project], root: str, place: str) -> Project | None:
    holding = [
        item for item in projects.values() if f"{place}/".startswith(f"{join(root, item.directory)}/".lstrip("/"))
    ]
    return max(holding, key=lambda item: (len(item.directory), item.path), default=None)


def _scripts_of(question: Question, projects: Mapping[str, Project], needed: Sequence[Project]) -> Iterator[str]:
    """The build's files but those of projects that are not needed: these are to be planned by themselves."""
    for path in question.files:
        owner = _holder(projects, question.root, path.rpartition("/")[0])
        if owner is None or not owner.directory or owner in needed:
            yield path


def _with_needed(projects: Mapping[str, Project], own: Project, script: str, *, tests: bool) -> list[Project]:
    """A project and those that it needs, directly or through others; what is needed for tests alone only with them."""
    names = (COMPILING, RUNNING, *((COMPILING_TESTS, RUNNING_TESTS) if tests else ()))
    found = {own.path: own}
    pending = [path for name in names for path in own.of(name).projects]
    while pending:
        path = pending.pop(0)
        if path not in projects:
            raise _refused(script, f"there is no project {path!r}")
        if path not in found:
            found[path] = projects[path]
            pending += [inner for name in (COMPILING, RUNNING) for inner in projects[path].of(name).projects]
    return list(found.values())


def _declarations(project: Project, script: str, *, with_tests: bool) -> Iterable[Declaration]:
    """What a project declares, with the scope that its class paths give."""
    compiling, running = project.of(COMPILING).dependencies, project.of(RUNNING).dependencies
    found: dict[Coordinate, tuple[str, tuple[tuple[str, str], ...]]] = {}
    for coordinate, exclusions in compiling.items():
        found[coordinate] = (COMPILE if coordinate in running else PROVIDED, exclusions)
    for coordinate, exclusions in running.items():
        found.setdefault(coordinate, (RUNTIME, exclusions))
    for coordinate, exclusions in project.of(PROCESSING).dependencies.items():
        found.setdefault(coordinate, (PROVIDED, exclusions))
    for name in (COMPILING_TESTS, RUNNING_TESTS) if with_tests else ():
        for coordinate, exclusions in project.of(name).dependencies.items():
            found.setdefault(coordinate, (TEST, exclusions))
    for coordinate, (scope, exclusions) in sorted(found.items(), key=lambda item: item[0]):
        yield Declaration(coordinate=coordinate, path=script, line=0, scope=scope, exclusions=exclusions)


def _single(project: Project, directories: Sequence[str], usual: str) -> str:
    """Where the sources lie if that is one unusual place, relative to the project's directory."""
    inside = [
        item.removeprefix(f"{project.directory}/")
        for item in directories
        if not project.directory or item.startswith(f"{project.directory}/")
    ]
    return inside[0] if len(inside) == 1 and inside[0] not in {usual, ""} else ""


def _told(question: Question) -> Notice:
    cause = question.cause
    detail = f"{cause.reason}: Gradle {question.version} ran the build, in the sandbox, and said what it declares"
    return Notice(
        kind=NoticeKind.DYNAMIC_DEPENDENCIES, path=cause.path, line=cause.line, subject="dependencies", detail=detail
    )


def _refused(script: str, reason: str) -> ManifestError:
    return ManifestError(path=script, reason=f"what Gradle said of the build cannot be used: {reason}")
