"""`package.json`: what a package depends on, what it is called, how it is started."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from services.resolver.errors import ManifestError
from services.resolver.node.json_text import JsonText
from services.resolver.node.specifier import split_package
from services.resolver.paths import directories_above, join, normal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MANIFEST = "package.json"
MAX_DEPENDENCIES = 20_000
MAX_RANGE_LENGTH = 1_000
WORKSPACE_PROTOCOL = "workspace:"
ALIAS = re.compile(r"npm:(?P<name>(?:@[^/@\s]+/)?[^/@\s]+)(?:@[^\s@/]*(?: [^@/]*)?)?")
LOCAL = re.compile(r"(?:file|link|portal):|\.{1,2}(?:/|$)|~/|/")
REPOSITORY = re.compile(
    r"git(?:\+|:|@)|git[a-z]*:|github:|gitlab:|bitbucket:|gist:|ssh:|[\w.-]+/[\w.-]+(?:#|$)|\S+@\S+:"
)
ARCHIVES = (".tgz", ".tar.gz", ".tar")


class Section(StrEnum):
    """The parts of a package.json that name dependencies."""

    PRODUCTION = "dependencies"
    OPTIONAL = "optionalDependencies"
    PEER = "peerDependencies"
    DEVELOPMENT = "devDependencies"


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """A dependency: its range as npm reads it, or the directory of the local package that it means."""

    name: str
    range: str
    section: Section
    path: str
    line: int
    local: str | None = None


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package.json that was read; `directory` is where it lies."""

    text: JsonText
    directory: str

    @property
    def path(self) -> str:
        """The file."""
        return self.text.path

    @property
    def name(self) -> str:
        """The package's name, or the empty string where npm allows no such name: names become paths."""
        name = self._string("name")
        return name if split_package(name) == (name, "") else ""

    @property
    def main(self) -> str:
        """The file that stands for the package, as written, or the empty string."""
        return self._string("main")

    @property
    def manager(self) -> str:
        """The package manager that the author asks for, without its version."""
        return self._string("packageManager").partition("@")[0]

    @property
    def is_root(self) -> bool:
        """Whether other packages of the workspace are installed together with this one."""
        return bool(self.text.value.get("workspaces"))

    @property
    def declares(self) -> bool:
        """Whether it says anything about dependencies; without, the imports decide."""
        return any(section in self.text.value for section in Section) or self.is_root

    @property
    def scripts(self) -> Mapping[str, str]:
        """The commands that `npm run` knows."""
        scripts = self.text.value.get("scripts", {})
        if not isinstance(scripts, dict) or not all(isinstance(value, str) for value in scripts.values()):
            raise self.text.error("scripts must be an object of strings", "scripts")
        return scripts

    @property
    def programs(self) -> tuple[str, ...]:
        """The files of `bin`, as written."""
        value = self.text.value.get("bin")
        if isinstance(value, str):
            return (value,)
        return tuple(item for item in value.values() if isinstance(item, str)) if isinstance(value, dict) else ()

    def links(self, name: str) -> bool:
        """Whether it depends on a package of that name in the workspace, and not in npm."""
        ranges = (str(self.mapping(section.value).get(name, "")) for section in Section)
        return any(wanted.startswith(WORKSPACE_PROTOCOL) or LOCAL.match(wanted) for wanted in ranges)

    def mapping(self, name: str) -> dict[str, Any]:
        """An object of the file, as `imports`; empty if there is none."""
        value = self.text.value.get(name)
        return value if isinstance(value, dict) else {}

    def _string(self, name: str) -> str:
        value = self.text.value.get(name)
        return value if isinstance(value, str) else ""


class Packages:
    """The packages of a workspace, each read when it is asked for. Every method may raise ManifestError."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        """Take the bytes of the workspace's files."""
        self._files = files
        self._read: dict[str, Package] = {}
        self._by_name: dict[str, str] | None = None

    def at(self, directory: str) -> Package | None:
        """The package of a directory, if it has a package.json."""
        path = join(directory, MANIFEST)
        if path not in self._files:
            return None
        if path not in self._read:
            self._read[path] = Package(text=JsonText(path, self._files[path]), directory=directory)
        return self._read[path]

    def above(self, path: str) -> Iterator[Package]:
        """The packages around a file, the nearest first."""
        for directory in directories_above(path):
            package = self.at(directory)
            if package is not None:
                yield package

    def nearest(self, path: str) -> Package | None:
        """The package that a file belongs to."""
        return next(self.above(path), None)

    def named(self, name: str) -> Package | None:
        """The workspace's own package of that name, the nearest to the root if there are several."""
        if self._by_name is None:
            self._by_name = self._names()
        return self.at(self._by_name[name]) if name in self._by_name else None

    def member(self, path: str, name: str) -> Package | None:
        """The workspace's own package that a file finds by name: by a common root, or because it is declared so."""
        own = self.named(name)
        if own is None:
            return None
        around = list(self.above(path))
        return own if any(item.is_root or item.links(name) for item in around) else None

    def _names(self) -> dict[str, str]:
        """Directories by the names of their packages; what cannot be read is nobody's package."""
        found: dict[str, str] = {}
        paths = [path for path in self._files if path.rpartition("/")[2] == MANIFEST]
        for path in sorted(paths, key=lambda item: (item.count("/"), item)):
            directory = path.rpartition("/")[0]
            name = self._name_at(directory)
            if name:
                found.setdefault(name, directory)
        return found

    def _name_at(self, directory: str) -> str:
        try:
            package = self.at(directory)
        except ManifestError:
            return ""
        return package.name if package else ""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The workspace: the bytes of the files that were read, the paths of all, and its packages."""

    files: Mapping[str, bytes]
    tree: frozenset[str]
    packages: Packages


def read_dependencies(package: Package, packages: Packages, sections: Sequence[Section]) -> list[Declared]:
    """What a package depends on; of a name in several sections the first given counts. Raises ManifestError."""
    found: dict[str, Declared] = {}
    for section in sections:
        for name, value in _section(package, section).items():
            item = _declared(package, packages, section, name, value)
            found.setdefault(name, item)
    return list(found.values())


def declared_names(package: Package, section: Section) -> frozenset[str]:
    """The names in a section, whatever they ask for."""
    return frozenset(_section(package, section))


def check_overrides(package: Package) -> dict[str, Any]:
    """The overrides, which npm applies to everybody's dependencies; raises ManifestError for other sources."""
    overrides = package.text.value.get("overrides", {})
    if not isinstance(overrides, dict):
        raise package.text.error("overrides must be an object", "overrides")
    pending: list[tuple[str, Any]] = [(name, value) for name, value in overrides.items()]
    while pending:
        top, value = pending.pop()
        if isinstance(value, dict):
            pending.extend((top, inner) for inner in value.values())
        elif not isinstance(value, str):
            raise package.text.error(f"overrides: {top} must be a version range", "overrides", top)
        elif not value.startswith("$"):
            _refuse_foreign(package, ("overrides", top), top, value)
    return overrides


def _section(package: Package, section: Section) -> dict[str, Any]:
    value = package.text.value.get(section.value, {})
    if not isinstance(value, dict):
        raise package.text.error(f"{section} must be an object of names and version ranges", section.value)
    if len(value) > MAX_DEPENDENCIES:
        raise package.text.error(f"more than {MAX_DEPENDENCIES} dependencies", section.value)
    return value


def _declared(package: Package, packages: Packages, section: Section, name: str, value: object) -> Declared:
    key = (section.value, name)
    if not isinstance(value, str):
        raise package.text.error(f"{name[:80]}: the version range must be a string", *key)
    if split_package(name) != (name, ""):
        raise package.text.error(f"{name[:80]!r} is no name that npm allows", *key)
    line = package.text.line(*key)
    item = Declared(name=name, range=value.strip() or "*", section=section, path=package.path, line=line)
    local = _local_directory(package, packages, item)
    if local is None:
        _refuse_foreign(package, key, name, item.range)
        return item
    return Declared(name=name, range=item.range, section=section, path=package.path, line=line, local=local)


def _local_directory(package: Package, packages: Packages, item: Declared) -> str | None:
    """The directory of a package of the workspace that a dependency means; None if it is npm's registry's."""
    key = (item.section.value, item.name)
    if item.range.startswith(WORKSPACE_PROTOCOL):
        own = packages.named(item.name)
        if own is None:
            raise package.text.error(f"{item.name}: the workspace has no package of this name", *key)
        return own.directory
    if not LOCAL.match(item.range) or item.range.endswith(ARCHIVES):
        # npm, too, takes a member of the workspace before the registry.
        own = packages.member(package.path, item.name) if not LOCAL.match(item.range) else None
        return own.directory if own is not None and own.directory != package.directory else None
    target = re.sub(r"^(?:file|link|portal):", "", item.range)
    directory = None if target.startswith(("/", "~")) else normal(join(package.directory, target))
    if directory is None or packages.at(directory) is None:
        reason = f"{item.name}: {item.range[:80]} is no directory with a package.json in the workspace"
        raise package.text.error(reason, *key)
    return directory


def _refuse_foreign(package: Package, key: tuple[str, str], name: str, wanted: str) -> None:
    """Raise ManifestError unless a range is one that npm's registry answers."""
    reason = ""
    if len(wanted) > MAX_RANGE_LENGTH:
        reason = f"the version range is longer than {MAX_RANGE_LENGTH} characters"
    elif wanted.startswith("npm:"):
        reason = "" if ALIAS.fullmatch(wanted) else "an alias is written npm:name@range"
    elif wanted.startswith("catalog:"):
        reason = "catalogs of pnpm are not read; write the version range here"
    elif LOCAL.match(wanted):
        reason = "an archive in the workspace is not installed; name a version from npm or the package's directory"
    elif wanted.startswith(("http:", "https:")):
        reason = "only npm's registry is asked, not other addresses; name a version from npm"
    elif REPOSITORY.match(wanted):
        reason = "only npm's registry is asked, not repositories; name a version from npm"
    elif ":" in wanted:
        reason = "no version range that npm knows"
    if reason:
        raise package.text.error(f"{name}: {wanted[:80]}: {reason}", *key)
