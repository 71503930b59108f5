"""From the imports of a program to the packages that it needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.resolver.model import ImportFinding, Notice, NoticeKind, Origin, OriginKind, Requirement
from services.resolver.node.imports_map import mapped_targets
from services.resolver.node.modules import TYPESCRIPT, Local, LocalFiles
from services.resolver.node.package import MANIFEST
from services.resolver.node.scan import SOURCE_SUFFIXES, Form, Import, Scan, scan_source
from services.resolver.node.specifier import Specifier, SpecifierKind, read_specifier
from services.resolver.node.table import PackageTable
from services.resolver.node.tsconfig import Compilers
from services.resolver.paths import join, normal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.resolver.node.package import Package, Packages

ANY_VERSION = "*"
OWN_FILE = "a file of the program's own that is not there"
MAX_MAPPINGS = 8
# To find what was meant by a name costs a millisecond.
MAX_NOTES = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """Why a program needs more than Node's own type stripping, and where that shows."""

    reason: str
    path: str
    line: int


@dataclass(kw_only=True, slots=True)
class Detection:
    """What the reachable files need.

    `used` maps every package that they import, known or not, to its first place; `read` holds the files. `tool` is set
    if Node cannot run them by itself, `compiler_file` then is the tsconfig that counts. `dynamic` says that some
    import's name is computed.
    """

    requirements: dict[str, Requirement] = field(default_factory=dict)
    used: dict[str, Origin] = field(default_factory=dict)
    unknown: list[ImportFinding] = field(default_factory=list)
    foreign: list[ImportFinding] = field(default_factory=list)
    optional_skipped: list[ImportFinding] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    local_packages: list[str] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    tool: Tool | None = None
    dynamic: bool = False


class Detector:
    """Follows imports from the given files through the workspace.

    Only what is reachable counts: tests, examples and other programs of the same workspace do not burden this one.
    """

    def __init__(
        self, *, files: Mapping[str, bytes], local: LocalFiles, packages: Packages, table: PackageTable
    ) -> None:
        self._files = files
        self._local = local
        self._packages = packages
        self._table = table
        self._compilers = Compilers(files)
        self._found = Detection()
        self._noticed: set[str] = set()
        self._notes: dict[str, str] = {}

    def run(self, starts: Iterable[str]) -> Detection:
        """Scan the files and all that they import. Raises ManifestError for a package.json on the way."""
        pending = list(starts)[::-1]
        self._found.read = set(pending)
        while pending:
            path = pending.pop()
            if path not in self._files or not path.endswith(SOURCE_SUFFIXES):
                continue
            for reached in self._scan_file(path):
                if reached not in self._found.read:
                    self._found.read.add(reached)
                    pending.append(reached)
        return self._found

    def _scan_file(self, path: str) -> list[str]:
        scan = scan_source(path, self._files[path])
        self._report(path, scan)
        reached: list[str] = []
        for item in scan.imports:
            if not item.types_only:
                reached.extend(self._follow(path, item, item.specifier))
        return reached

    def _report(self, path: str, scan: Scan) -> None:
        if scan.problem:
            self._notice_broken(path, scan.line, scan.problem)
        compiler = self._compilers.of(path)
        if compiler.problem and compiler.problem not in self._noticed:
            self._notice_broken(compiler.problem, 1, "is no object of JSON")
        self._found.dynamic = self._found.dynamic or scan.dynamic
        if path.endswith((".jsx", ".tsx")):
            self._need_tool("JSX", path, 1)
        if scan.beyond_types:
            self._need_tool(scan.beyond_types, path, scan.beyond_types_line)
        source = scan.jsx_source or compiler.jsx_source
        if scan.jsx and source and not source.startswith("."):
            # What turns JSX into calls imports them by itself.
            self._follow(path, Import(specifier=f"{source}/jsx-runtime", line=1), f"{source}/jsx-runtime")

    def _notice_broken(self, path: str, line: int, detail: str) -> None:
        self._noticed.add(path)
        notice = Notice(kind=NoticeKind.BROKEN_FILE, path=path, line=line, subject=path, detail=detail)
        self._found.notices.append(notice)

    def _need_tool(self, reason: str, path: str, line: int) -> None:
        if self._found.tool is None:
            self._found.tool = Tool(reason=reason, path=path, line=line)

    def _follow(self, path: str, item: Import, text: str, depth: int = 0) -> list[str]:
        """The local files that an import runs; what is not local is noted as needed."""
        specifier = read_specifier(text)
        if specifier.kind is SpecifierKind.FILE or (item.form == Form.PROGRAM and depth == 0):
            return self._file(path, item, text if item.form == Form.PROGRAM else specifier.name)
        if specifier.kind in {SpecifierKind.BUILTIN, SpecifierKind.INLINE}:
            return []
        if specifier.kind is SpecifierKind.MAPPED:
            return self._mapped(path, item, text, depth)
        alias = self._alias(path, text)
        if alias is not None:
            if path.endswith(TYPESCRIPT) or alias.path.endswith(TYPESCRIPT):
                self._need_tool("`paths` or `baseUrl` of tsconfig.json", path, item.line)
            return [alias.path]
        own = self._own_package(path, specifier) if specifier.kind is SpecifierKind.PACKAGE else None
        if own is not None:
            return self._enter_package(own, specifier.subpath)
        self._require(path, item, specifier)
        return []

    def _file(self, path: str, item: Import, name: str) -> list[str]:
        base = self._local.relative(path, name)
        found = self._find(base) if base is not None else None
        if found is None:
            if item.form != Form.PROGRAM and not item.optional and not self._is_data(name):
                self._found.foreign.append(ImportFinding(module=name, path=path, line=item.line, note=OWN_FILE))
            return []
        imports_from_types = path.endswith(TYPESCRIPT) and item.form == Form.IMPORT
        if not found.exact and (found.path.endswith(TYPESCRIPT) or imports_from_types):
            self._need_tool("an import without the file's own extension", path, item.line)
        return [found.path]

    def _is_data(self, name: str) -> bool:
        """Whether a missing file is one that the program, or a build, may well write first."""
        return name.endswith((".json", ".node", ".wasm"))

    def _find(self, base: str) -> Local | None:
        main = ""
        if join(base, MANIFEST) in self._files:
            package = self._packages.at(base)
            main = package.main if package is not None else ""
        return self._local.find(base, main)

    def _alias(self, path: str, text: str) -> Local | None:
        for target in self._compilers.of(path).paths_of(text):
            found = self._find(target)
            if found is not None:
                return found
        return None

    def _mapped(self, path: str, item: Import, text: str, depth: int) -> list[str]:
        """`#name`, by the `imports` of the package that the file belongs to."""
        package = self._packages.nearest(path)
        for target in mapped_targets(package.mapping("imports"), text) if package is not None else ():
            if target.startswith("./") and package is not None:
                base = normal(join(package.directory, target))
                found = self._find(base) if base else None
                if found is not None:
                    return [found.path]
            elif not target.startswith(("#", ".")) and depth < MAX_MAPPINGS:
                return self._follow(path, item, target, depth + 1)
        alias = self._alias(path, text)
        if alias is not None:
            self._need_tool("`paths` of tsconfig.json", path, item.line)
            return [alias.path]
        if not item.optional:
            note = "`imports` of package.json does not lead to a file"
            self._found.foreign.append(ImportFinding(module=text, path=path, line=item.line, note=note))
        return []

    def _own_package(self, path: str, specifier: Specifier) -> Package | None:
        """The workspace's own package of that name: the importing file's, or another."""
        nearest = self._packages.nearest(path)
        if nearest is not None and nearest.name == specifier.name and "exports" in nearest.text.value:
            return nearest
        other = self._packages.member(path, specifier.name)
        return None if other is None or other is nearest else other

    def _enter_package(self, package: Package, subpath: str) -> list[str]:
        if package.directory not in self._found.local_packages:
            self._found.local_packages.append(package.directory)
        exports = package.text.value.get("exports")
        name = f"./{subpath}" if subpath else "."
        rows = exports if isinstance(exports, dict) and any(key.startswith(".") for key in exports) else {".": exports}
        targets = [*mapped_targets(rows, name), *([package.main] if not subpath and package.main else [])]
        for target in (*targets, subpath):
            base = normal(join(package.directory, target))
            found = self._find(base) if base is not None else None
            if found is not None:
                if found.path.endswith(TYPESCRIPT) and not found.exact:
                    self._need_tool("a package without its compiled files", found.path, 1)
                return [found.path]
        return []

    def _require(self, path: str, item: Import, specifier: Specifier) -> None:
        name = specifier.name
        if specifier.kind is SpecifierKind.FOREIGN:
            if not item.optional:
                self._found.foreign.append(ImportFinding(module=name, path=path, line=item.line, note=specifier.note))
            return
        if item.optional:
            suggestion = f"{name}@{ANY_VERSION}" if self._table.knows(name) else ""
            finding = ImportFinding(module=name, path=path, line=item.line, suggestion=suggestion, package=name)
            self._found.optional_skipped.append(finding)
            return
        origin = Origin(kind=OriginKind.IMPORT, path=path, line=item.line, module=item.specifier)
        self._found.used.setdefault(name, origin)
        if self._table.knows(name):
            known = self._found.requirements.get(name)
            origins = (*known.origins, origin) if known else (origin,)
            self._found.requirements[name] = Requirement(specifier=f"{name}@{ANY_VERSION}", name=name, origins=origins)
            return
        if name not in self._notes:
            self._notes[name] = self._table.note(name) if len(self._notes) < MAX_NOTES else ""
        note = self._notes[name]
        self._found.unknown.append(ImportFinding(module=item.specifier, path=path, line=item.line, note=note))
        self._notice_name(path, item.line, name)

    def _notice_name(self, path: str, line: int, name: str) -> None:
        kind = self._table.verdict(name)
        note = self._notes[name]
        if name not in self._noticed and note:
            self._noticed.add(name)
            self._found.notices.append(Notice(kind=kind, path=path, line=line, subject=name, detail=note))
