"""Which package.json counts for a program, and what is to be installed by it.

The nearest one that says anything about dependencies counts. Where it belongs to a workspace of several packages, what
the workspace's root and the local packages that it leads to ask for is installed with it.

Development dependencies are installed where the program needs them: it is a script of npm (whose commands are mostly
among them), a command of the client's own that names npm or one of them, or it imports one; or the exec asks for the
group `dev`. A program that is started by its file needs its compilers and test tools as little as in production.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.resolver.images import offered
from services.resolver.model import Notice, NoticeKind
from services.resolver.node.engines import needs_newer
from services.resolver.node.package import (
    Declared,
    Section,
    check_overrides,
    declared_names,
    read_dependencies,
)
from services.resolver.paths import join

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from services.resolver.model import Context
    from services.resolver.node.detect import Detection
    from services.resolver.node.package import Package, Packages
    from services.resolver.node.table import PackageTable
    from services.resolver.node.target import Run

DEVELOPMENT_GROUP = "dev"
RUNNERS = frozenset({"npm", "npx", "yarn", "pnpm", "pnpx"})
DEFAULT_NAME = "program"
MAX_LOCAL_PACKAGES = 500
# An optional dependency may be absent: that is more than what the same name in another section says.
PRODUCTION_SECTIONS = (Section.OPTIONAL, Section.PRODUCTION, Section.PEER)
# Files by which a project could lead an install elsewhere, or run code in it.
SETTINGS = (".npmrc", ".yarnrc", ".yarnrc.yml", ".pnpmfile.cjs", ".pnpmfile.mjs", "pnpm-workspace.yaml")


@dataclass(kw_only=True)
class Manifest:
    """What is to be installed: of the package itself, its workspace's root, and local packages that they name.

    `links` maps the names of local packages to their directories. `development` says that development dependencies are
    among what is installed.
    """

    package: Package
    root: Package
    development: bool
    declared: dict[str, Declared] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def is_merged(self) -> bool:
        """Whether several package.json files are installed as one."""
        return len(self.paths) > 1

    def package_json(self, added: Mapping[str, str]) -> bytes:
        """The package.json to install by: the dependencies alone, so that other edits cost no install."""
        document: dict[str, Any] = {"name": self.root.name or DEFAULT_NAME, "private": True}
        for section in Section:
            ranges = {item.name: item.range for item in self.declared.values() if item.section is section}
            if section is Section.PRODUCTION:
                ranges.update(added)
            if ranges:
                document[section.value] = ranges
        if self.overrides:
            document["overrides"] = self.overrides
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def detected_package_json(requirements: Mapping[str, str]) -> bytes:
    """The package.json of a program that has none."""
    document = {"name": DEFAULT_NAME, "private": True, "dependencies": dict(sorted(requirements.items()))}
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def find_package(packages: Packages, path: str) -> tuple[Package | None, list[Notice]]:
    """The package.json that counts for a file, and notices of those that were passed over. Raises ManifestError."""
    notices: list[Notice] = []
    for package in packages.above(path):
        if package.declares:
            return package, notices
        detail = "it says nothing about dependencies"
        kind = NoticeKind.MANIFEST_IGNORED
        notices.append(Notice(kind=kind, path=package.path, subject=package.path, detail=detail))
    return None, notices


def wants_development(package: Package, root: Package, run: Run, groups: Iterable[str]) -> bool:
    """Whether the development dependencies are installed."""
    names = declared_names(package, Section.DEVELOPMENT) | declared_names(root, Section.DEVELOPMENT)
    words = {word.rpartition("/")[2] for word in run.target.command}
    return (
        DEVELOPMENT_GROUP in groups
        or bool(run.program.script)
        or not RUNNERS.isdisjoint(words)
        or not names.isdisjoint(words)
        or not (names - _production_names(package, root)).isdisjoint(run.detection.used)
    )


def _production_names(package: Package, root: Package) -> frozenset[str]:
    sections = (declared_names(item, section) for item in (package, root) for section in PRODUCTION_SECTIONS)
    return frozenset(name for names in sections for name in names)


def root_of(packages: Packages, package: Package, tree: Collection[str]) -> Package:
    """The package at whose place the lock of a package lies: the root of its workspace, or itself."""
    for other in packages.above(package.path):
        if other.is_root or join(other.directory, "pnpm-workspace.yaml") in tree:
            return other
    return package


def read_manifest(
    packages: Packages, package: Package, root: Package, detection: Detection, *, development: bool
) -> Manifest:
    """Collect what is to be installed. Raises ManifestError."""
    manifest = Manifest(package=package, root=root, development=development)
    sections = (*PRODUCTION_SECTIONS, *([Section.DEVELOPMENT] if development else []))
    pending = list({item.path: item for item in (package, root)}.values())
    first = len(pending)
    pending += [own for place in detection.local_packages if (own := packages.at(place)) and own not in pending]
    seen = {item.path for item in pending}
    for number, item in enumerate(pending):
        manifest.paths.append(item.path)
        for declared in read_dependencies(item, packages, sections if number < first else PRODUCTION_SECTIONS):
            local = packages.at(declared.local) if declared.local is not None else None
            if local is None:
                _add(manifest, item, declared)
            else:
                manifest.links[declared.name] = local.directory
                if local.path not in seen and len(seen) < MAX_LOCAL_PACKAGES:
                    seen.add(local.path)
                    pending.append(local)
    for place in detection.local_packages:
        own = packages.at(place)
        if own is not None and own.name:
            manifest.links.setdefault(own.name, place)
    manifest.overrides = check_overrides(root)
    return manifest


def _add(manifest: Manifest, package: Package, declared: Declared) -> None:
    if declared.section is Section.PEER and _is_optional_peer(package, declared.name):
        return
    other = manifest.declared.setdefault(declared.name, declared)
    if other.range != declared.range:
        detail = f"it asks for {declared.name}@{declared.range}, and {other.path} for {other.range}, which is used"
        kind = NoticeKind.MANIFEST_IGNORED
        notice = Notice(kind=kind, path=package.path, line=declared.line, subject=package.path, detail=detail)
        manifest.notices.append(notice)


def _is_optional_peer(package: Package, name: str) -> bool:
    entry = package.mapping("peerDependenciesMeta").get(name)
    return isinstance(entry, dict) and entry.get("optional") is True


def manifest_notices(manifest: Manifest, tree: Collection[str], table: PackageTable, context: Context) -> list[Notice]:
    """What a person should know about the manifest."""
    found = list(manifest.notices)
    found += settings_ignored(tree, (manifest.package.directory, manifest.root.directory))
    found += _foreign_overrides(manifest.root)
    wanted = manifest.package.mapping("engines").get("node")
    if isinstance(wanted, str) and needs_newer(wanted, context.toolchain["node"]):
        text = manifest.package.text
        detail = f"it asks for Node {wanted[:80]}, the sandbox has {context.toolchain['node']}"
        detail += offered(context.images, "node", "Node", lambda node: not needs_newer(wanted, node))
        kind = NoticeKind.SETTING_IGNORED
        line = text.line("engines", "node")
        found.append(Notice(kind=kind, path=text.path, line=line, subject="engines", detail=detail))
    for item in manifest.declared.values():
        detail = _confusion(table, item)
        if detail:
            kind = NoticeKind.NAME_CONFUSED
            found.append(Notice(kind=kind, path=item.path, line=item.line, subject=item.name, detail=detail))
    return found


def _foreign_overrides(root: Package) -> list[Notice]:
    """What other package managers read in place of `overrides`."""
    detail = "npm, which installs here, does not read it; write overrides"
    kind = NoticeKind.SETTING_IGNORED
    return [
        Notice(kind=kind, path=root.path, line=root.text.line(key), subject=name, detail=detail)
        for name, key, value in (
            ("resolutions", "resolutions", root.mapping("resolutions")),
            ("pnpm.overrides", "pnpm", root.mapping("pnpm").get("overrides")),
        )
        if value
    ]


def _confusion(table: PackageTable, item: Declared) -> str:
    if item.range.startswith("npm:"):
        return ""
    if item.name in table.placeholders:
        return f"Node has {item.name} itself and never loads the package; remove it"
    return table.confusions.get(item.name, "")


def settings_ignored(tree: Collection[str], directories: Sequence[str]) -> list[Notice]:
    """The project's own settings of package managers, which an install in the sandbox does not read."""
    places = dict.fromkeys(join(directory, name) for directory in (*directories, "") for name in SETTINGS)
    detail = "the sandbox's own settings of npm are used"
    return [
        Notice(kind=NoticeKind.SETTING_IGNORED, path=place, subject=place, detail=detail)
        for place in places
        if place in tree
    ]
