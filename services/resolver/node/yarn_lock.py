"""yarn.lock, of the classic yarn and of yarn 2 and later, as a graph of pinned packages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from services.resolver.errors import LockError
from services.resolver.node.graph import Graph, Node
from services.resolver.node.names import NAME, VERSION, split_specifier
from services.resolver.node.npm_lock import ARCHIVE
from services.resolver.node.yaml_text import Mapping as YamlMapping
from services.resolver.node.yaml_text import read_yaml

# A quote that nothing ends takes the rest of its line.
TOKEN = re.compile(r'"((?:[^"\\]|\\.?)*+)(?:"|\Z)|([^\s:",]+)')
# Ranges of anything but npm's registry.
ELSEWHERE = re.compile(r"(?:git|https?|file|link|portal|workspace|exec|ssh|github|patch)[:+@]|[^@/\s]+/[^@/\s]+\Z")
BUILTIN_PATCH = "builtin<compat/"
NPM = "npm:"
MAX_ENTRIES = 50_000
# All but comments and empty lines; the classic kind is indented by its levels.
CLASSIC_LINE = re.compile(r"(?P<indent> *)(?P<words>[^ #].*?)(?P<colon>:?)")
ENTRY_LINE, SECTION_LINE, FIELD_LINE, DEPENDENCY_LINE = (0, True), (2, True), (2, False), (4, False)


@dataclass(kw_only=True, slots=True)
class Entry:
    """One entry: the descriptors (`name@range`) that it answers, and what it pins."""

    line: int
    descriptors: list[str]
    name: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    dependencies: dict[str, str] = field(default_factory=dict)
    optional: dict[str, str] = field(default_factory=dict)

    def section(self, title: str) -> dict[str, str]:
        """Where the lines below a title go; what no install needs goes nowhere."""
        return {"dependencies": self.dependencies, "optionalDependencies": self.optional}.get(title, {})


@dataclass(frozen=True, kw_only=True)
class YarnLock:
    """The entries of a lock, and the same by what they answer; `root` holds the ranges of the project, if it says."""

    name: str
    entries: tuple[Entry, ...]
    by_descriptor: Mapping[str, int]
    root: Mapping[str, str] | None

    def key_of(self, name: str, wanted: str) -> str | None:
        """The key of the entry that answers a range."""
        for descriptor in (f"{name}@{wanted}", f"{name}@{NPM}{wanted}", f"{name}@{wanted.removeprefix(NPM)}"):
            if descriptor in self.by_descriptor:
                return str(self.by_descriptor[descriptor])
        # A resolution of the project replaces ranges, and leaves one version for all of them.
        same = self._by_name.get(name, set())
        return str(next(iter(same))) if len(same) == 1 else None

    @cached_property
    def _by_name(self) -> Mapping[str, set[int]]:
        found: dict[str, set[int]] = {}
        for descriptor, index in self.by_descriptor.items():
            found.setdefault(split_specifier(descriptor)[0], set()).add(index)
        return found

    def graph(self, root: Mapping[str, str], optional: Mapping[str, str]) -> Graph:
        """All that the project's ranges lead to; raises LockError for what the lock does not answer."""
        nodes = {str(index): self._node(entry) for index, entry in enumerate(self.entries)}
        needs = self._keys("the project", root, 0)
        return Graph(
            nodes=nodes,
            root=Node(name="", version="", needs=needs, optional=self._keys("the project", optional, 0)),
        )

    def _node(self, entry: Entry) -> Node:
        version = entry.fields.get("version", "")
        if not VERSION.fullmatch(version) or not NAME.fullmatch(entry.name):
            raise LockError(name=self.name, line=entry.line, reason=f"{entry.descriptors[0][:80]} has no version")
        label = f"{entry.name}@{version}"
        return Node(
            name=entry.name,
            version=version,
            integrity=entry.fields.get("integrity", ""),
            line=entry.line,
            needs=self._keys(label, entry.dependencies, entry.line),
            optional=self._keys(label, entry.optional, entry.line),
        )

    def _keys(self, owner: str, ranges: Mapping[str, str], line: int) -> dict[str, str]:
        found = {}
        for name, wanted in ranges.items():
            key = self.key_of(name, wanted)
            if key is None:
                reason = f"nothing answers {name}@{wanted[:80]}, which {owner} asks for"
                raise LockError(name=self.name, line=line, reason=reason)
            found[name] = key
        return found


def is_berry(text: str) -> bool:
    """Whether yarn 2 or later wrote it."""
    return re.search(r"^__metadata:", text, re.MULTILINE) is not None


def read_yarn_lock(text: str, name: str = "yarn.lock") -> YarnLock:
    """Read a lock of either kind; raises LockError with the line."""
    entries, root = _berry(text, name) if is_berry(text) else (_classic(text, name), None)
    if len(entries) > MAX_ENTRIES:
        raise LockError(name=name, line=0, reason=f"has more than {MAX_ENTRIES} entries")
    by_descriptor = {descriptor: index for index, entry in enumerate(entries) for descriptor in entry.descriptors}
    return YarnLock(name=name, entries=tuple(entries), by_descriptor=by_descriptor, root=root)


def _classic(text: str, name: str) -> list[Entry]:
    entries: list[Entry] = []
    section: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        match = CLASSIC_LINE.fullmatch(line.rstrip())
        if match is None:
            continue
        words = [quoted or bare for quoted, bare in TOKEN.findall(match["words"])]
        kind = (len(match["indent"]), match["colon"] == ":")
        if kind == ENTRY_LINE and words:
            entries.append(Entry(line=number, descriptors=words))
        elif kind == SECTION_LINE and entries and words:
            section = entries[-1].section(words[0])
        elif kind == FIELD_LINE and entries and words:
            entries[-1].fields[words[0]] = words[-1]
        elif kind == DEPENDENCY_LINE and entries and words:
            section[words[0]] = words[-1]
        else:
            raise LockError(name=name, line=number, reason=f"is no line of yarn's: {line.strip()[:80]!r}")
    for entry in entries:
        entry.name = _classic_name(entry, name)
    return entries


def _classic_name(entry: Entry, name: str) -> str:
    """The package's own name, which for an alias stands in the range."""
    package, wanted = split_specifier(entry.descriptors[0])
    resolved = entry.fields.get("resolved", "")
    if (ELSEWHERE.match(wanted) and not wanted.startswith(NPM)) or (resolved and not ARCHIVE.fullmatch(resolved)):
        reason = f"{entry.descriptors[0][:80]} is not a package of npm's registry"
        raise LockError(name=name, line=entry.line, reason=reason)
    return split_specifier(wanted.removeprefix(NPM))[0] if wanted.startswith(NPM) else package


def _berry(text: str, name: str) -> tuple[list[Entry], dict[str, str] | None]:
    document = read_yaml(text, name)
    entries: list[Entry] = []
    root: dict[str, str] | None = None
    for key in document:
        if key == "__metadata":
            continue
        value = document.mapping(key)
        resolution = value.text("resolution")
        if resolution.endswith("@workspace:."):
            root = _ranges(value.mapping("dependencies"))
        elif "@workspace:" not in resolution:
            entries.append(_berry_entry(key, value, document.lines[key], name))
    return entries, root


def _berry_entry(key: str, value: YamlMapping, line: int, name: str) -> Entry:
    package, reference = split_specifier(value.text("resolution"))
    if not reference.startswith(NPM) and BUILTIN_PATCH not in reference:
        raise LockError(name=name, line=line, reason=f"{key[:80]} is not a package of npm's registry")
    dependencies = _ranges(value.mapping("dependencies"))
    meta = value.mapping("dependenciesMeta")
    optional = {item for item in dependencies if meta.mapping(item).text("optional") == "true"}
    return Entry(
        line=line,
        descriptors=[descriptor.strip() for descriptor in key.split(",")],
        name=package,
        fields={"version": value.text("version")},
        dependencies={item: wanted for item, wanted in dependencies.items() if item not in optional},
        optional={item: dependencies[item] for item in optional},
    )


def _ranges(dependencies: YamlMapping) -> dict[str, str]:
    return {name: dependencies.text(name) for name in dependencies}
