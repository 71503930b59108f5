"""The modules of a workspace: the program's own, and directories that stand for others (`replace`, `use`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.resolver.errors import ToolchainError
from services.resolver.go.mod_file import ModFile, read_go_mod, read_go_work
from services.resolver.go.names import HOST_DEPTHS, covers, is_path, is_remote, language_of
from services.resolver.go.sources import MOD, WORK, resolved
from services.resolver.go.table import package_table
from services.resolver.model import Notice, NoticeKind
from services.resolver.paths import join, with_parents

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from services.resolver.go.mod_file import Place
    from services.resolver.go.sources import Sources
    from services.resolver.go.target import Program

# The name of a module that nobody has named.
UNNAMED = "program"
MAX_LOCAL = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """A module of the workspace; `file` is None for one that has no go.mod of its own."""

    directory: str
    path: str
    file: ModFile | None = None

    @property
    def manifest(self) -> str:
        """The path of its go.mod."""
        return join(self.directory, MOD)


@dataclass(frozen=True, kw_only=True, slots=True)
class Modules:
    """The program's module, and the local ones that it can import.

    `siblings` are those that go.work, and no `replace` of the module's own, puts into its reach; `named` tells whether
    packages of the program import each other by its module's path although no go.mod gives it one.
    """

    main: Module
    local: tuple[Module, ...] = ()
    siblings: tuple[Module, ...] = ()
    work: ModFile | None = None
    named: bool = False
    notices: tuple[Notice, ...] = ()

    def find(self, import_path: str) -> tuple[Module, str] | None:
        """The local module that an import path lies in, and the directory that it means."""
        found = [module for module in (self.main, *self.local) if covers(module.path, import_path)]
        if not found:
            return None
        module = max(found, key=lambda item: len(item.path))
        return module, join(module.directory, import_path[len(module.path) :].strip("/"))


def find_modules(sources: Sources, program: Program, toolchain: str) -> Modules:
    """The modules around a program. Raises ManifestError with file and line."""
    above = with_parents(program.directory)
    place = next((item for item in above if join(item, MOD) in sources.tree), None)
    if place is None:
        return _unwritten(sources, program)
    main = _module(sources, place)
    own = tuple(_replaced(sources, main))
    siblings, work, notices = _siblings(sources, main, {module.path for module in own})
    found = Modules(main=main, local=(*own, *siblings), siblings=siblings, work=work, notices=tuple(notices))
    _check_toolchain(found, toolchain)
    return replace(found, notices=(*notices, *_newer_toolchains(found, toolchain)))


def _module(sources: Sources, directory: str, path: str = "") -> Module:
    manifest = join(directory, MOD)
    file = read_go_mod(sources.files.get(manifest, b""), manifest)
    assert file.module is not None
    return Module(directory=directory, path=path or file.module.text, file=file)


def _replaced(sources: Sources, main: Module) -> Iterator[Module]:
    """The directories that the module's own go.mod puts in the place of others."""
    assert main.file is not None
    local = [item for item in main.file.replaces if item.is_local]
    if len(local) > MAX_LOCAL:
        raise main.file.error(f"replaces more than {MAX_LOCAL} modules by directories", local[MAX_LOCAL].line)
    for item in local:
        directory = resolved(main.directory, item.new_path)
        yield _module(sources, _inside(sources, main.file, directory, item.new_path, item.line), item.path)


def _inside(sources: Sources, file: ModFile, directory: str | None, text: str, line: int) -> str:
    """The directory, if it is one of a module in the workspace."""
    if directory is None:
        reason = f"{text[:80]!r} is outside the workspace; put the module into it, and write the path from here"
        raise file.error(reason, line)
    if join(directory, MOD) not in sources.tree:
        raise file.error(f"{text[:80]!r} has no go.mod", line)
    return directory


def _siblings(
    sources: Sources, main: Module, replaced: set[str]
) -> tuple[tuple[Module, ...], ModFile | None, list[Notice]]:
    """The other modules of the go.work above."""
    above = with_parents(main.directory)
    place = next((item for item in above if join(item, WORK) in sources.tree), None)
    if place is None:
        return (), None, []
    path = join(place, WORK)
    work = read_go_work(sources.files.get(path, b""), path)
    if len(work.uses) > MAX_LOCAL:
        raise work.error(f"uses more than {MAX_LOCAL} modules", work.uses[MAX_LOCAL].line)
    used = {use: _inside(sources, work, resolved(place, use.text), use.text, use.line) for use in work.uses}
    if main.directory not in used.values():
        detail = f"it does not use {main.manifest}, so the program runs without it"
        return (), work, [Notice(kind=NoticeKind.SETTING_IGNORED, path=path, subject=WORK, detail=detail)]
    modules = [_module(sources, directory) for directory in used.values() if directory != main.directory]
    modules += _replaced_by_work(sources, work, place)
    return tuple(item for item in modules if item.path not in replaced), work, []


def _replaced_by_work(sources: Sources, work: ModFile, place: str) -> list[Module]:
    local = [item for item in work.replaces if item.is_local]
    return [
        _module(sources, _inside(sources, work, resolved(place, item.new_path), item.new_path, item.line), item.path)
        for item in local[:MAX_LOCAL]
    ]


def _check_toolchain(modules: Modules, toolchain: str) -> None:
    """Raise ToolchainError if a module needs a newer Go than there is."""
    files = [module.file for module in (modules.main, *modules.local)]
    for file in (*files, modules.work):
        if file is not None and file.go is not None and _is_newer(file.go.text, toolchain):
            raise _too_old(file, file.go, toolchain)


def _too_old(file: ModFile, line: Place, toolchain: str) -> ToolchainError:
    reason = f"go {line.text} is newer than this sandbox's Go {toolchain}, and no other is fetched"
    advice = f"write `go {toolchain}` or older, or use an image with a newer Go"
    return ToolchainError(
        path=file.path,
        line=line.line,
        reason=f"{reason}; {advice}",
        tool="go",
        word="Go",
        fits=lambda there: not _is_newer(line.text, there),
    )


def _newer_toolchains(modules: Modules, toolchain: str) -> list[Notice]:
    file = modules.main.file
    line: Place | None = file.toolchain if file is not None else None
    if file is None or line is None or not _is_newer(line.text.removeprefix("go"), toolchain):
        return []
    detail = f"the program runs with Go {toolchain}"
    return [
        Notice(kind=NoticeKind.SETTING_IGNORED, path=file.path, line=line.line, subject=line.text[:80], detail=detail)
    ]


def _is_newer(version: str, toolchain: str) -> bool:
    wanted, there = language_of(version), language_of(toolchain)
    # A line without its third number is met by each of that series.
    return wanted > there[: len(wanted)]


def _unwritten(sources: Sources, program: Program) -> Modules:
    """A module without a go.mod: its root and its path follow from how its packages import each other."""
    roots = list(reversed(with_parents(program.directory)))
    votes: Counter[tuple[str, str]] = Counter()
    for path in _imported(sources):
        found = next((vote for root in roots if (vote := _vote(sources, root, path))), None)
        if found:
            votes[found] += 1
    if not votes:
        return Modules(main=Module(directory="", path=UNNAMED))
    (root, path), _ = max(votes.items(), key=lambda item: (item[1], -len(item[0][0])))
    return Modules(main=Module(directory=root, path=path), named=True)


def _imported(sources: Sources) -> Sequence[str]:
    table = package_table()
    found = (
        item.path
        for directory in sources.packages_anywhere()
        for path in sources.built(directory, tests=True)
        for item in sources.scan(path).imports
    )
    return [path for path in dict.fromkeys(found) if is_path(path) and not table.is_standard(path)]


def _vote(sources: Sources, root: str, path: str) -> tuple[str, str] | None:
    """Root and path of the module by which an import would mean a directory of the workspace."""
    parts = path.split("/")
    first = max(1, HOST_DEPTHS.get(parts[0], 2) if is_remote(path) else 1)
    if path.startswith(tuple(f"{module}/" for module in package_table().popular)):
        return None
    for count in range(first, len(parts)):
        directory = join(root, "/".join(parts[count:]))
        if sources.has_package(directory):
            return root, "/".join(parts[:count])
    return None
