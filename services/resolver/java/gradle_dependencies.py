"""The dependencies of a Gradle build script, in the forms that people and models write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.java.coordinates import Coordinate, is_valid
from services.resolver.java.declared import COMPILE, IMPORT, PROVIDED, RUNTIME, TEST, Declaration
from services.resolver.java.gradle_lexer import Token
from services.resolver.java.gradle_versions import plain_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from services.resolver.java.catalog import Catalog
    from services.resolver.java.gradle_lexer import Statement
    from services.resolver.java.gradle_values import Values

SCOPES = {
    "implementation": COMPILE, "api": COMPILE, "compile": COMPILE, "compileOnlyApi": PROVIDED, "compileOnly": PROVIDED,
    "annotationProcessor": PROVIDED, "kapt": PROVIDED, "developmentOnly": RUNTIME, "runtimeOnly": RUNTIME,
    "runtime": RUNTIME, "providedCompile": PROVIDED, "providedRuntime": RUNTIME, "shadow": COMPILE,
    "testImplementation": TEST, "testCompile": TEST, "testRuntimeOnly": TEST, "testRuntime": TEST,
    "testCompileOnly": TEST, "testAnnotationProcessor": TEST, "testApi": TEST,
}  # fmt: skip
# What a build needs for itself, for tools, or for kinds of tests that nobody asked for.
OTHER_USES = ("classpath", "integrationTest", "jmh", "checkstyle", "pmd", "spotbugs", "errorprone", "jacoco")
PLATFORMS = frozenset({"platform", "enforcedPlatform"})
FILES = frozenset({"files", "fileTree"})
LOCAL = frozenset({"gradleApi", "localGroovy", "gradleTestKit"})
MAP_KEYS = ("group", "name", "version", "classifier", "ext")
FORMS = 'write it as implementation("group:artifact:version"), or give a pom.xml'


@dataclass(kw_only=True, eq=False)
class UnreadableBuildError(ManifestError):
    """What a build declares cannot be known without running it; the line is that of what cannot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What one block of dependencies declares; `projects` are paths of other modules, with their lines."""

    dependencies: tuple[Declaration, ...]
    managed: tuple[Declaration, ...]
    projects: tuple[tuple[str, int], ...]


class DependencyReader:
    """Reads the `dependencies` of one script."""

    def __init__(self, path: str, values: Values, catalog: Catalog) -> None:
        """Take the script's path, what is known of its variables, and the catalog."""
        self._path, self._values, self._catalog = path, values, catalog
        self._dependencies: list[Declaration] = []
        self._managed: list[Declaration] = []
        self._projects: list[tuple[str, int]] = []

    def read(self, statements: Sequence[Statement]) -> Found:
        """Read a block; raises ManifestError with the line of what cannot be known without running it."""
        for statement in statements:
            self._statement(statement)
        return Found(
            dependencies=tuple(self._dependencies), managed=tuple(self._managed), projects=tuple(self._projects)
        )

    def _statement(self, statement: Statement) -> None:
        tokens = statement.tokens
        name, tokens = statement.name, tokens[1:]
        if name == "constraints":
            for item in statement.block or []:
                self._constraint(item)
            return
        if name == "add" and [token.text for token in tokens[:3:2]] == ["(", ","]:
            name, tokens = tokens[1].text, [tokens[0], *tokens[3:]]
        if name in {"def", "val", "var", "modules", "components", "println"}:
            return
        if name not in SCOPES:
            if not name.startswith(OTHER_USES) and not _is_custom(name, tokens):
                raise self._unreadable(
                    statement, f"{name[:80]!r} among the dependencies cannot be known without running it"
                )
            return
        exclusions = tuple(self._exclusions(statement))
        scope = SCOPES[name]
        for argument in _arguments(tokens):
            self._argument(statement, argument, scope, exclusions, statement.block or [])

    def _argument(
        self,
        statement: Statement,
        tokens: list[Token],
        scope: str,
        exclusions: tuple[tuple[str, str], ...],
        block: Sequence[Statement],
    ) -> None:
        first = tokens[0].text
        calls = len(tokens) > 1 and tokens[1].text == "(" and tokens[0].kind == "word"
        if first in FILES or first in LOCAL:
            return
        if calls and first == "project":
            texts = [token.text for token in tokens if token.kind == "text"]
            if not texts:
                raise self._unreadable(statement, "a project whose path cannot be known without running it")
            self._projects.append((texts[0], tokens[0].line))
            return
        if calls and first in PLATFORMS:
            for inner in _arguments(tokens[1:]):
                for coordinate in self._coordinates(statement, inner):
                    bom = replace(coordinate, extension="pom")
                    self._managed.append(self._declaration(bom, tokens[0].line, IMPORT, ()))
            return
        for coordinate in self._coordinates(statement, tokens):
            filled = replace(coordinate, version=coordinate.version or self._rich_version(block))
            self._dependencies.append(self._declaration(filled, tokens[0].line, scope, exclusions))

    def _coordinates(self, statement: Statement, tokens: list[Token]) -> list[Coordinate]:
        if any(token.text in {":", "="} and token.kind == "mark" for token in tokens):
            return [self._from_map(statement, tokens)]
        if len(tokens) == 1 and tokens[0].kind == "word" and tokens[0].text.startswith("libs."):
            return self._from_catalog(statement, tokens[0].text.removeprefix("libs."))
        if tokens[-1].text == ")" and tokens[0].text == "kotlin":
            raise self._error(
                statement, f"Kotlin's own libraries are of no use here, as only Java is compiled: {FORMS}"
            )
        text = self._values.join(tokens)
        if text is None:
            raise self._unreadable(statement, "a dependency whose name or version cannot be known without running it")
        return [self._from_text(statement, text)]

    def _from_text(self, statement: Statement, text: str) -> Coordinate:
        body, _, extension = text.strip().partition("@")
        group, artifact, version, classifier = (*body.split(":"), "", "", "", "")[:4]
        coordinate = Coordinate(
            group=group,
            artifact=artifact,
            version=plain_version(version),
            classifier=classifier,
            extension=extension or "jar",
        )
        return self._checked(statement, coordinate, text)

    def _from_map(self, statement: Statement, tokens: list[Token]) -> Coordinate:
        """`group: 'g', name: 'a', version: v`, with `=` in Kotlin."""
        fields: dict[str, str] = {}
        for index, token in enumerate(tokens[:-2]):
            if token.text in MAP_KEYS and tokens[index + 1].text in {":", "="}:
                end = next((at for at in range(index + 2, len(tokens)) if tokens[at].text == ","), len(tokens))
                value = self._values.join(tokens[index + 2 : end])
                if value is None:
                    raise self._unreadable(statement, f"a {token.text} that cannot be known without running it")
                fields[token.text] = value
        coordinate = Coordinate(
            group=fields.get("group", ""),
            artifact=fields.get("name", ""),
            version=plain_version(fields.get("version", "")),
            classifier=fields.get("classifier", ""),
            extension=fields.get("ext", "jar"),
        )
        return self._checked(statement, coordinate, " ".join(fields.values()))

    def _from_catalog(self, statement: Statement, name: str) -> list[Coordinate]:
        name = name.removesuffix(".get")
        names = self._catalog.bundles.get(name.removeprefix("bundles."), ()) if name.startswith("bundles.") else (name,)
        found = [self._catalog.libraries[item] for item in names if item in self._catalog.libraries]
        if not found or len(found) != len(names):
            raise self._error(statement, f"libs.{name[:80]} is not in gradle/libs.versions.toml")
        return found

    def _constraint(self, statement: Statement) -> None:
        scope = SCOPES.get(statement.name)
        if scope is None:
            raise self._unreadable(statement, "a constraint that cannot be known without running it")
        for argument in _arguments(statement.tokens[1:]):
            for coordinate in self._coordinates(statement, argument):
                version = coordinate.version or self._rich_version(statement.block or [])
                filled = replace(coordinate, version=version)
                self._managed.append(self._declaration(filled, statement.line, COMPILE, ()))

    def _rich_version(self, block: Sequence[Statement]) -> str:
        """`version { strictly("1.2") }`."""
        for statement in block:
            for inner in statement.block or [] if statement.name == "version" else []:
                texts = [self._values.text_of(token) for token in inner.tokens[1:] if token.kind == "text"]
                if inner.name in {"strictly", "require", "prefer"} and texts and texts[0]:
                    return plain_version(texts[0])
        return ""

    def _exclusions(self, statement: Statement) -> Iterator[tuple[str, str]]:
        for inner in statement.block or []:
            if inner.name == "exclude":
                tokens = inner.tokens
                pairs = {
                    tokens[index].text: tokens[index + 2].text
                    for index in range(1, len(tokens) - 2)
                    if tokens[index + 1].text in {":", "="} and tokens[index + 2].kind == "text"
                }
                yield pairs.get("group", "*"), pairs.get("module", "*")
            elif inner.name in {"transitive", "isTransitive"} and "false" in {token.text for token in inner.tokens}:
                yield "*", "*"

    def _declaration(
        self, coordinate: Coordinate, line: int, scope: str, exclusions: tuple[tuple[str, str], ...]
    ) -> Declaration:
        return Declaration(coordinate=coordinate, path=self._path, line=line, scope=scope, exclusions=exclusions)

    def _checked(self, statement: Statement, coordinate: Coordinate, text: str) -> Coordinate:
        if not is_valid(coordinate):
            raise self._error(statement, f"{text[:100]!r} is not written group:artifact:version: {FORMS}")
        return coordinate

    def _error(self, statement: Statement, reason: str) -> ManifestError:
        """Whatever else Gradle would make of it, it is wrong."""
        return ManifestError(path=self._path, reason=reason, line=statement.line)

    def _unreadable(self, statement: Statement, reason: str) -> ManifestError:
        return UnreadableBuildError(path=self._path, reason=reason, line=statement.line)


def _is_custom(name: str, tokens: list[Token]) -> bool:
    """A configuration that a build names itself: for a use of its own."""
    return (
        name.isidentifier()
        and bool(tokens)
        and (tokens[0].kind == "text" or tokens[0].text == "(")
        and (any(token.kind == "text" and ":" in token.text for token in tokens))
    )


def _arguments(tokens: list[Token]) -> list[list[Token]]:
    """The arguments of a call, with or without its brackets; the pairs of a map are one."""
    if tokens and tokens[0].text == "(" and tokens[-1].text == ")":
        tokens = tokens[1:-1]
    found: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token.kind == "mark") * ((token.text in "([") - (token.text in ")]"))
        if token.text == "," and token.kind == "mark" and depth == 0:
            found.append([])
        else:
            found[-1].append(token)
    arguments = [item for item in found if item]
    if len(arguments) == 1 and arguments[0][0].text == "[" and arguments[0][-1].text == "]":
        return _arguments(
            [Token(kind="mark", text="(", line=0), *arguments[0][1:-1], Token(kind="mark", text=")", line=0)]
        )
    in_map = [[token.text for token in item[1:2] if token.kind == "mark"] in ([":"], ["="]) for item in arguments]
    if arguments and all(in_map):
        return [tokens]
    return arguments
