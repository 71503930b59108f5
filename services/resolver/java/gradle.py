"""What a Gradle build says of dependencies, read from its scripts without running them, in both languages."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.java import catalog as catalogs
from services.resolver.java.coordinates import VERSION, Coordinate, parse_coordinate
from services.resolver.java.declared import IMPORT, PROVIDED, Declaration, Declared, PomFile
from services.resolver.java.gradle_dependencies import FORMS, DependencyReader, UnreadableBuildError
from services.resolver.java.gradle_lexer import parse_script
from services.resolver.java.gradle_lock import NAME as LOCK
from services.resolver.java.gradle_lock import read_gradle_lock
from services.resolver.java.gradle_values import Values
from services.resolver.java.pom_writer import OWN, write_pom
from services.resolver.java.release import check_release
from services.resolver.model import Notice, NoticeKind
from services.resolver.paths import directories_above, join, normal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from services.resolver.java.catalog import Catalog
    from services.resolver.java.gradle_lexer import Statement

SCRIPTS = ("build.gradle", "build.gradle.kts")
SETTINGS = ("settings.gradle", "settings.gradle.kts")
PROPERTIES = "gradle.properties"
MAX_PROJECTS = 200
# At the root of a build, where no project of its own lies.
NO_PROJECTS = frozenset({"src", "buildSrc", "gradle"})
SPRING_BOOT = "org.springframework.boot"
# Where what is declared depends on what happens when the build runs.
RUN_BLOCKS = frozenset(
    {"if", "else", "for", "while", "try", "switch", "def", "void", "project", "configure", "afterEvaluate"}
)
RUN_CALLS = (
    ".each",
    ".all",
    ".every",
    ".forEach",
    ".withType",
    ".withPlugin",
    ".withId",
    ".matching",
    ".afterEvaluate",
)
# Maven Central by name, and what the sandbox has instead of everything else.
KNOWN_REPOSITORIES = frozenset({"mavenCentral", "mavenLocal", "google", "gradlePluginPortal", "jcenter"})


@dataclass(kw_only=True, slots=True)
class _Build:
    """What has been read so far."""

    paths: list[str] = field(default_factory=list)
    dependencies: list[Declaration] = field(default_factory=list)
    managed: list[Declaration] = field(default_factory=list)
    projects: list[tuple[str, str, int]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    main_class: str = ""
    preview: bool = False
    release: int
    strict: bool


class GradleWorkspace:
    """The builds of a workspace."""

    def __init__(self, files: Mapping[str, bytes], release: int) -> None:
        """Take the bytes of the workspace's files, and the sandbox's release of Java."""
        self._files, self._release = files, release

    def read(self, path: str, near: str, *, tests: bool, strict: bool = True) -> Declared:
        """What the build script at a path declares for what lies in a directory, with the modules that it needs.

        Raises UnreadableBuildError where that cannot be known without running it; unless `strict`, what only some other
        block may declare is told by a notice instead. Raises ManifestError, LockError.
        """
        root = self.root_of(path)
        catalog = self._catalog(root)
        build = _Build(release=self._release, strict=strict)
        self._script(path, root, catalog, build)
        directory = path.rpartition("/")[0]
        if directory == root:
            self._check_place(path, near.removeprefix(f"{root}/") if root else near, build)
        main_class, seen = build.main_class, {path: directory}
        while build.projects:
            name, script, line = build.projects.pop(0)
            place = join(root, name.strip(":").replace(":", "/"))
            found = self._script_in(place)
            if not found:
                reason = f"the project {name[:100]!r} has no build script in {place or '.'}"
                raise UnreadableBuildError(path=script, reason=reason, line=line)
            if found not in seen:
                seen[found] = place
                if len(seen) > MAX_PROJECTS:
                    raise ManifestError(path=path, reason=f"more than {MAX_PROJECTS} projects need each other")
                self._script(found, root, catalog, build)
        pins, locks, drift = self.pins_of(directory, root, build.dependencies, tests=tests)
        build.paths += locks
        build.notices += drift
        dependencies = [pinned(item, pins) for item in build.dependencies]
        managed = [*build.managed, *management(pins, {item.coordinate.name for item in dependencies})]
        return Declared(
            paths=tuple(dict.fromkeys(build.paths)),
            directory=directory,
            dependencies=tuple(dependencies),
            poms=(PomFile(id=OWN, content=write_pom(OWN, dependencies, managed)),),
            highest=True,
            local=tuple(item for item in seen.values() if item != directory),
            main_class=main_class,
            preview=build.preview,
            notices=tuple(dict.fromkeys(build.notices)),
            pins=pins,
        )

    def _check_place(self, path: str, below: str, build: _Build) -> None:
        """A project may have no script of its own: what the root's says for it then is not what it says for itself."""
        if not below or below.partition("/")[0] in NO_PROJECTS:
            return
        for statement in parse_script(path, self._files[path]):
            if statement.name == "subprojects" and any(item.name == "dependencies" for item in statement.block or []):
                _leave(path, statement.line, build)

    def root_of(self, path: str) -> str:
        """The highest directory with settings; without any, the script's own."""
        above = directories_above(path)
        return next(
            (place for place in reversed(above) if any(join(place, name) in self._files for name in SETTINGS)), above[0]
        )

    def _script_in(self, directory: str) -> str:
        return next((join(directory, name) for name in SCRIPTS if join(directory, name) in self._files), "")

    def _catalog(self, root: str) -> Catalog:
        path = join(root, catalogs.NAME)
        content = self._files.get(path)
        return catalogs.read_catalog(path, content) if content is not None else catalogs.Catalog()

    def _script(self, path: str, root: str, catalog: Catalog, build: _Build) -> None:
        """Read one script, and what the root's says for all."""
        statements = parse_script(path, self._files[path])
        values = Values()
        for place in dict.fromkeys((root, path.rpartition("/")[0])):
            if join(place, PROPERTIES) in self._files:
                values.learn_properties(self._files[join(place, PROPERTIES)])
        for name, version in catalog.versions.items():
            values.know(f"versions.{name}.get", version)
            values.know(f"versions.{name}", version)
        main = self._script_in(root)
        shared = parse_script(main, self._files[main]) if main and main != path else []
        values.learn(shared)
        values.learn(statements)
        for statement in shared:
            if statement.name in {"allprojects", "subprojects"}:
                self._read(main, statement.block or [], values, catalog, build)
        inner = [item for statement in statements if statement.name == "allprojects" for item in statement.block or []]
        self._read(path, [*statements, *inner], values, catalog, build)
        if catalogs.NAME and join(root, catalogs.NAME) in self._files:
            build.paths.append(join(root, catalogs.NAME))

    def _read(
        self, path: str, statements: Sequence[Statement], values: Values, catalog: Catalog, build: _Build
    ) -> None:
        if path not in build.paths:
            build.paths.append(path)
        spring = ""
        for statement in statements:
            block = statement.block or []
            match statement.name:
                case "dependencies":
                    found = DependencyReader(path, values, catalog).read(block)
                    build.dependencies += found.dependencies
                    build.managed += found.managed
                    build.projects += [(name, path, line) for name, line in found.projects]
                case "dependencyManagement":
                    build.managed += _imports(path, block, values)
                case "plugins":
                    spring = _spring_version(block, values, catalog) or spring
                case "repositories":
                    build.notices += _repositories(path, block)
                case "apply":
                    self._applied(path, statement, values, catalog, build)
                case _:
                    _settings(path, statement, values, build)
            _unread(path, statement, build)
        if spring and VERSION.fullmatch(spring):
            bom = Coordinate(group=SPRING_BOOT, artifact="spring-boot-dependencies", version=spring, extension="pom")
            build.managed.append(Declaration(coordinate=bom, path=path, line=0, scope=IMPORT))

    def _applied(self, path: str, statement: Statement, values: Values, catalog: Catalog, build: _Build) -> None:
        """`apply from: 'other.gradle'`: a script of the workspace is read like its own lines."""
        words = [token.text for token in statement.tokens]
        texts = [token.text for token in statement.tokens if token.kind == "text"]
        if "from" not in words or not texts:
            return
        name = texts[0].replace("$rootDir/", "").replace("${rootDir}/", "").replace("$projectDir/", "")
        place = normal(join(path.rpartition("/")[0], name))
        other = next((item for item in (place, normal(name)) if item and item in self._files), "")
        if not other or other in build.paths or len(build.paths) > MAX_PROJECTS:
            detail = "it is not in the workspace, or was read before: nothing is taken from it"
            build.notices.append(
                Notice(
                    kind=NoticeKind.MANIFEST_IGNORED, path=path, line=statement.line, subject=texts[0], detail=detail
                )
            )
            return
        statements = parse_script(other, self._files[other])
        values.learn(statements)
        self._read(other, statements, values, catalog, build)

    def pins_of(
        self, directory: str, root: str, dependencies: Sequence[Declaration], *, tests: bool
    ) -> tuple[dict[str, str], list[str], list[Notice]]:
        """The versions of the lockfile in a directory, else of the root's, with its path and what it lacks."""
        for place in dict.fromkeys((directory, root)):
            path = join(place, LOCK)
            if path in self._files:
                locked = read_gradle_lock(path, self._files[path], tests=tests)
                pins = {name: coordinate.version for name, (coordinate, _) in locked.items()}
                return pins, [path], _drift(path, dependencies, locked)
        return {}, [], []


def pinned(item: Declaration, pins: Mapping[str, str]) -> Declaration:
    """A declaration with the version that is fixed for it, if one is."""
    version = pins.get(item.coordinate.name)
    return replace(item, coordinate=replace(item.coordinate, version=version)) if version else item


def management(pins: Mapping[str, str], direct: set[str]) -> Iterator[Declaration]:
    """The versions that are fixed for what is not declared directly."""
    for name, version in sorted(pins.items()):
        if name not in direct:
            group, artifact = name.split(":")
            coordinate = Coordinate(group=group, artifact=artifact, version=version)
            yield Declaration(coordinate=coordinate, path=LOCK, line=0)


def _drift(path: str, dependencies: Iterable[Declaration], locked: Mapping[str, object]) -> list[Notice]:
    detail = "the lockfile does not hold it: its version is chosen anew; run gradle dependencies --write-locks"
    return [
        Notice(kind=NoticeKind.LOCK_DRIFT, path=path, line=0, subject=item.coordinate.name, detail=detail)
        for item in dependencies
        if item.scope != "test" and item.coordinate.name not in locked and item.scope != PROVIDED
    ]


def _imports(path: str, block: Sequence[Statement], values: Values) -> Iterator[Declaration]:
    """`imports { mavenBom "g:a:v" }` of Spring's plugin."""
    for imports in (item for item in block if item.name == "imports"):
        for statement in imports.block or []:
            tokens = [token for token in statement.tokens[1:] if token.text not in {"(", ")"}]
            text = values.join(tokens)
            if statement.name != "mavenBom":
                continue
            bom = parse_coordinate(text or "")
            if bom is None or not bom.version:
                reason = "a BOM whose name or version cannot be known without running it"
                raise UnreadableBuildError(path=path, reason=reason, line=statement.line)
            coordinate = replace(bom, extension="pom")
            yield Declaration(coordinate=coordinate, path=path, line=statement.line, scope=IMPORT)


def _spring_version(block: Sequence[Statement], values: Values, catalog: Catalog) -> str:
    """The version of Spring Boot's plugin, which brings the versions of its packages along."""
    for statement in block:
        tokens = statement.tokens
        texts = [values.text_of(token) for token in tokens if token.kind == "text"]
        if SPRING_BOOT in texts[:1] and "version" in {token.text for token in tokens}:
            named = texts[1] if len(texts) > 1 else values.text_of(tokens[-1])
            return named or ""
        for token in tokens:
            alias = token.text.removeprefix("libs.plugins.")
            name, version = catalog.plugins.get(alias, ("", ""))
            if token.text.startswith("libs.plugins.") and name == SPRING_BOOT:
                return version
    return ""


def _repositories(path: str, block: Sequence[Statement]) -> Iterator[Notice]:
    detail = "packages come from Maven Central, through Qila's mirror"
    for statement in block:
        if statement.name not in KNOWN_REPOSITORIES:
            yield Notice(
                kind=NoticeKind.SETTING_IGNORED,
                path=path,
                line=statement.line,
                subject="repositories",
                detail=f"repositories: {detail}",
            )


def _unread(path: str, statement: Statement, build: _Build) -> None:
    """Dependencies that are declared, or not, when the build runs."""
    pending = [(statement, False)]
    while pending:
        current, runs = pending.pop()
        words = current.name.split(".")
        if "dependencies" in words and (words[-1] == "add" or (runs and current.block is not None)):
            _leave(path, current.line, build)
            continue
        runs = runs or current.name in RUN_BLOCKS or current.name.endswith(RUN_CALLS)
        pending += [(item, runs) for item in current.block or []]


def _leave(path: str, line: int, build: _Build) -> None:
    """What only a run of the build would tell is an error, or left out and told."""
    reason = "what is declared here cannot be known without running it"
    if build.strict:
        raise UnreadableBuildError(path=path, reason=reason, line=line)
    detail = f"{reason}, and it is left out: {FORMS}"
    build.notices.append(
        Notice(kind=NoticeKind.MANIFEST_IGNORED, path=path, line=line, subject="dependencies", detail=detail)
    )


def _settings(path: str, statement: Statement, values: Values, build: _Build) -> None:
    """What is said of the program and of Java's version, wherever it stands."""
    pending = [statement]
    while pending:
        current = pending.pop()
        pending += current.block or []
        name = current.name
        texts = [text for token in current.tokens if token.kind == "text" and (text := values.text_of(token))]
        if name in {"mainClass", "mainClass.set", "mainClassName", "application.mainClass", "Main-Class"} and texts:
            build.main_class = build.main_class or texts[-1]
        if name.rpartition(".")[2] in {"sourceCompatibility", "targetCompatibility"} or "languageVersion" in name:
            words = [token.text for token in current.tokens if token.kind == "word"]
            wanted = texts[-1] if texts else words[-1]
            check_release(path, current.line, wanted.rpartition("VERSION_")[2].replace("_", "."), build.release)
        if "--enable-preview" in texts:
            build.preview = True
