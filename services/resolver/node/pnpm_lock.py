"""pnpm-lock.yaml of pnpm 8 and later (lockfileVersion 6 to 9), as a graph of pinned packages."""

from __future__ import annotations

import re

from services.resolver.errors import LockError
from services.resolver.node.graph import Graph, Node
from services.resolver.node.names import NAME, VERSION, split_specifier
from services.resolver.node.yaml_text import Mapping, read_yaml

KINDS = ("dependencies", "devDependencies", "optionalDependencies")
# What stands behind a version for the peers that it was resolved with; they nest.
PEERS = re.compile(r"\(.*\Z", re.DOTALL)


class PnpmLock:
    """Reads one lock."""

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._document = read_yaml(text, name)
        version = self._document.text("lockfileVersion")
        if not re.fullmatch(r"[6-9]\.\d+", version):
            line = self._document.lines.get("lockfileVersion", 1)
            raise self._error(
                line, f"lockfileVersion {version or 'missing'!r} is unknown; pnpm 8 or later writes one that is"
            )
        if "patchedDependencies" in self._document:
            line = self._document.lines["patchedDependencies"]
            raise self._error(line, "changes packages by patches of the project, which no registry has")
        self._packages = self._document.mapping("packages")
        self._snapshots = self._document.mapping("snapshots") if version.startswith("9") else self._packages

    @property
    def importer(self) -> Mapping:
        """What the project at the root asks for."""
        importers = self._document.mapping("importers")
        return importers.mapping(".") if "." in importers else self._document

    def specifiers(self) -> dict[str, str]:
        """The ranges that the lock was made for."""
        return {
            name: wanted.text("specifier")
            for kind in KINDS
            for name, wanted in self.importer.mapping(kind).items()
            if isinstance(wanted, Mapping)
        }

    def graph(self) -> Graph:
        """All pinned packages; raises LockError."""
        importer = self.importer
        needs: dict[str, str] = {}
        optional: dict[str, str] = {}
        for kind in KINDS:
            for name, wanted in importer.mapping(kind).items():
                version = wanted.text("version") if isinstance(wanted, Mapping) else ""
                target = optional if kind == "optionalDependencies" else needs
                target[name] = self._key(name, version, importer.mapping(kind).lines[name])
        nodes = {self._plain(key): self._node(key) for key in self._snapshots}
        return Graph(nodes=nodes, root=Node(name="", version="", needs=needs, optional=optional))

    def _node(self, key: str) -> Node:
        line = self._snapshots.lines[key]
        name, version = split_specifier(PEERS.sub("", self._plain(key)))
        if not NAME.fullmatch(name) or not VERSION.fullmatch(version):
            raise self._error(line, f"{key[:80]} is not a package of npm's registry")
        snapshot = self._snapshots.mapping(key)
        found = self._packages.mapping(key if key in self._packages else f"{name}@{version}")
        return Node(
            name=name,
            version=version,
            integrity=found.mapping("resolution").text("integrity"),
            line=line,
            needs=self._needs(snapshot.mapping("dependencies")),
            optional=self._needs(snapshot.mapping("optionalDependencies")),
        )

    def _needs(self, dependencies: Mapping) -> dict[str, str]:
        return {name: self._key(name, dependencies.text(name), dependencies.lines[name]) for name in dependencies}

    def _key(self, name: str, version: str, line: int) -> str:
        """The key of the package that a name and a version stand for; an alias brings its own name."""
        version = version.removeprefix("/")
        for key in (f"{name}@{version}", version):
            if key in self._snapshots or f"/{key}" in self._snapshots:
                return key
        raise self._error(line, f"{name}: {version[:80] or 'nothing'} is not a package of npm's registry in this lock")

    def _plain(self, key: str) -> str:
        return key.removeprefix("/")

    def _error(self, line: int, reason: str) -> LockError:
        return LockError(name=self._name, line=line, reason=reason)
