"""What a program imports, followed through the packages of its workspace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.resolver.go.names import is_path, is_remote, provider
from services.resolver.go.table import package_table
from services.resolver.model import ImportFinding, Notice, NoticeKind, Origin, OriginKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.resolver.go.modules import Modules
    from services.resolver.go.scan import Import
    from services.resolver.go.sources import Sources
    from services.resolver.go.target import Program

MAX_BROKEN = 20


@dataclass(kw_only=True, slots=True)
class Detection:
    """What was found: packages of other modules by import path, and imports that nothing can provide.

    `packages` are imported by the program's own module, `further` by local modules that it imports, and `local` are
    those of these. `constrained` are those of `packages` that only files for some systems import; `directories` the
    packages of the workspace that are reached.
    """

    packages: dict[str, list[Origin]] = field(default_factory=dict)
    constrained: set[str] = field(default_factory=set)
    unknown: list[ImportFinding] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    directories: set[str] = field(default_factory=set)
    local: set[str] = field(default_factory=set)
    further: set[str] = field(default_factory=set)


class Detector:
    """Follows imports from a program, or takes those of whole modules."""

    def __init__(self, sources: Sources, modules: Modules) -> None:
        self._sources = sources
        self._modules = modules
        self._required = {item.path for item in modules.main.file.requires} if modules.main.file else set()

    def reach(self, program: Program) -> Detection:
        """From a program's files on; broken ones are told."""
        found = Detection()
        main = self._modules.main
        if program.everything:
            starts = [
                path
                for directory in self._sources.packages(main.directory)
                for path in self._sources.built(directory, tests=True)
            ]
        elif program.files:
            starts = list(program.files)
        else:
            starts = list(self._sources.built(program.directory, tests=program.tests))
        found.directories.add(program.directory)
        self._follow(starts, found)
        return found

    def everything(self) -> Detection:
        """The imports of all packages of the main module, tests included."""
        found = Detection()
        for directory in self._sources.packages(self._modules.main.directory):
            for path in self._sources.built(directory, tests=True):
                self._take(path, found)
        return found

    def _follow(self, starts: Iterable[str], found: Detection) -> None:
        pending, seen = list(starts), set(starts)
        while pending:
            path = pending.pop()
            self._tell_if_broken(path, found)
            for directory in self._take(path, found):
                found.directories.add(directory)
                fresh = [item for item in self._sources.built(directory) if item not in seen]
                seen.update(fresh)
                pending += fresh

    def _tell_if_broken(self, path: str, found: Detection) -> None:
        line = self._sources.scan(path).error_line
        if line and len(found.notices) < MAX_BROKEN:
            detail = "does not parse as Go; imports before and after the place are used"
            found.notices.append(Notice(kind=NoticeKind.BROKEN_FILE, path=path, line=line, subject=path, detail=detail))

    def _take(self, path: str, found: Detection) -> list[str]:
        """Note the imports of a file; the directories of the workspace that it leads to."""
        local = []
        for item in self._sources.scan(path).imports:
            directory = self._classify(path, item, found)
            if directory is not None:
                local.append(directory)
        return local

    def _classify(self, path: str, item: Import, found: Detection) -> str | None:
        table = package_table()
        if table.is_standard(item.path):
            return None
        local = self._modules.find(item.path)
        if local is not None and self._sources.has_package(local[1]):
            if local[0] is not self._modules.main and self._is_own(path):
                found.local.add(item.path)
            return local[1]
        declared = provider(item.path, self._required)
        if local is not None and len(declared) > len(local[0].path):
            local = None
        published = is_path(item.path) and is_remote(item.path) and not table.is_wrong(item.path)
        if local is None and (declared or published):
            self._note(path, item, found)
            return None
        note = table.note(item.path)
        if local is not None:
            note = f"there is no directory {local[1]!r} with files of Go"
        found.unknown.append(ImportFinding(module=item.path, path=path, line=item.line, note=note))
        return None

    def _is_own(self, path: str) -> bool:
        """Whether a file belongs to the program's own module."""
        return not any(
            module.directory and path.startswith(f"{module.directory}/")
            for module in self._modules.local
            if len(module.directory) > len(self._modules.main.directory) or not self._is_in_main(path)
        )

    def _is_in_main(self, path: str) -> bool:
        main = self._modules.main.directory
        return not main or path.startswith(f"{main}/")

    def _note(self, path: str, item: Import, found: Detection) -> None:
        if not self._is_own(path):
            found.further.add(item.path)
            return
        origins = found.packages.setdefault(item.path, [])
        if not self._sources.is_constrained(path):
            found.constrained.discard(item.path)
        elif not origins:
            found.constrained.add(item.path)
        origins.append(Origin(kind=OriginKind.IMPORT, path=path, line=item.line, module=item.path))
