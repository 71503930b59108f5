"""From the imports of a program to the distributions that it needs."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from packaging.requirements import Requirement as ParsedRequirement
from packaging.utils import canonicalize_name

from services.resolver.model import ImportFinding, Notice, NoticeKind, Origin, OriginKind, Requirement
from services.resolver.python.detection import Detection, apply_hints
from services.resolver.python.guards import needed_imports
from services.resolver.python.modules import Local, LocalModules
from services.resolver.python.names import is_generic, unknown_module
from services.resolver.python.scan import Import, Scan, scan_program
from services.resolver.python.table import ImportTable, Provider, StandardLibrary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# The platform of every sandbox, as the table names platforms.
PLATFORM = "linux"
# In so many files broken parts are looked for everywhere; of further ones only what their imports need is read.
WHOLE_FILES = 200


class Detector:
    """Follows imports from the given files through the workspace.

    Only what is reachable counts: tests, examples and other programs of the same workspace do not burden this one.
    """

    def __init__(
        self,
        *,
        files: Mapping[str, bytes],
        modules: LocalModules,
        roots: Sequence[str],
        python: tuple[int, ...],
        table: ImportTable,
        library: StandardLibrary,
    ) -> None:
        self._files = files
        self._modules = modules
        self._roots = roots
        self._python = python
        self._table = table
        self._library = library
        self._found = Detection()
        self._seen: set[str] = set()
        self._noticed: set[tuple[str, str]] = set()
        self._scanned = 0

    def require(self, module: str) -> None:
        """Count a module that Python itself is told to run as imported."""
        item = Import(module=module, line=0)
        if not self._is_standard(item):
            self._require("", item)

    def run(self, starts: Iterable[str]) -> Detection:
        """Scan the files and all that they import."""
        pending = list(starts)[::-1]
        self._seen = set(pending)
        while pending:
            path = pending.pop()
            if path not in self._files:
                continue
            for reached in self._scan_file(path):
                if reached not in self._seen:
                    self._seen.add(reached)
                    pending.append(reached)
        apply_hints(self._found, self._table)
        return self._found

    def _scan_file(self, path: str) -> list[str]:
        self._scanned += 1
        scan = scan_program(path, self._files[path], self._python, whole=self._scanned <= WHOLE_FILES)
        self._report_problem(path, scan)
        self._found.hints += [(path, hint) for hint in scan.hints]
        needed, skipped = needed_imports(
            scan.imports, lambda item: self._is_available(path, item), lambda item: bool(self._providers(item))
        )
        reached: list[str] = []
        for item in needed:
            local = self._local(path, item)
            if local is not None:
                reached.extend(local.files)
            elif not self._is_standard(item):
                self._require(path, item)
        for item in skipped:
            local = self._local(path, item)
            if local is not None:
                reached.extend(local.files)
            elif not self._is_standard(item):
                self._skip(path, item)
        return reached

    def _report_problem(self, path: str, scan: Scan) -> None:
        if scan.problem:
            self._found.notices.append(
                Notice(kind=NoticeKind.BROKEN_FILE, path=path, line=scan.line, subject=path, detail=scan.problem)
            )

    def _is_available(self, path: str, item: Import) -> bool:
        return self._is_standard(item) or self._local(path, item) is not None

    def _is_standard(self, item: Import) -> bool:
        return not item.level and item.module.partition(".")[0] in self._library.modules

    def _local(self, path: str, item: Import) -> Local | None:
        if item.level:
            return self._modules.relative(path, item.level, item.module, item.names)
        if self._is_standard(item):
            return None
        local = self._modules.find(item.module, item.names, self._roots)
        if local is not None and local.is_namespace and not local.files and self._providers(item):
            # An installed package wins over a bare directory of the same name.
            return None
        return local

    def _providers(self, item: Import) -> list[Provider]:
        """The distributions behind an import: the submodules that it names may each have their own."""
        whole = self._table.find(item.module)
        found = [whole] if whole else []
        for name in item.names:
            part = self._table.find(f"{item.module}.{name}")
            if part and part.module != (whole.module if whole else ""):
                found.append(part)
        if whole and len(found) > 1 and all(part.module.startswith(f"{item.module}.") for part in found[1:]):
            covered = len(found) - 1 == len(item.names)
            return found[1:] if covered else found
        return found

    def _require(self, path: str, item: Import) -> None:
        top = item.module.partition(".")[0]
        self._found.imported.add(top)
        providers = self._providers(item)
        if top in self._library.python2:
            self._notice(NoticeKind.PYTHON_2_MODULE, path, item, self._library.python2[top])
        elif top in self._library.removed:
            self._notice(NoticeKind.REMOVED_MODULE, path, item, self._library.removed[top])
        elif not providers:
            note = unknown_module(item.module)
            self._found.unknown.append(ImportFinding(module=item.module, path=path, line=item.line, note=note))
            if is_generic(item.module):
                self._notice(NoticeKind.NAME_GENERIC, path, item, "no such file was found")
        if top not in self._library.python2:
            for provider in providers:
                self._add(path, item, provider)

    def _add(self, path: str, item: Import, provider: Provider) -> None:
        if provider.platform not in {"", PLATFORM}:
            self._notice(NoticeKind.NOT_ON_THIS_PLATFORM, path, item, provider.requirement)
            return
        name = _canonical_name(provider.requirement)
        if canonicalize_name(provider.module) != name:
            self._notice(NoticeKind.ALIAS_USED, path, item, provider.requirement)
        origin = Origin(
            kind=OriginKind.IMPORT,
            path=path,
            line=item.line,
            module=item.module,
            note="curated" if provider.curated else "",
        )
        known = self._found.requirements.get(name)
        origins = (*known.origins, origin) if known else (origin,)
        # The row with a version bound is the more particular one.
        specifier = max((provider.requirement, known.specifier if known else ""), key=len)
        self._found.requirements[name] = Requirement(specifier=specifier, name=name, origins=origins)

    def _skip(self, path: str, item: Import) -> None:
        self._found.imported.add(item.module.partition(".")[0])
        for provider in self._providers(item)[:1]:
            self._found.optional_skipped.append(
                ImportFinding(module=item.module, path=path, line=item.line, suggestion=provider.requirement)
            )

    def _notice(self, kind: NoticeKind, path: str, item: Import, detail: str) -> None:
        top = item.module if kind is NoticeKind.ALIAS_USED else item.module.partition(".")[0]
        if (kind.value, top) not in self._noticed:
            self._noticed.add((kind.value, top))
            self._found.notices.append(Notice(kind=kind, path=path, line=item.line, subject=top, detail=detail))


# Of the table's rows alone.
@cache
def _canonical_name(requirement: str) -> str:
    return str(canonicalize_name(ParsedRequirement(requirement).name))
