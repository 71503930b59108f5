"""What a program needs: by a lock from outside, by its go.mod, or by its imports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.resolver.errors import LockError, ManifestError
from services.resolver.go import installer
from services.resolver.go.bundle import read_lock, split
from services.resolver.go.installer import Solving, Wanted
from services.resolver.go.missing import finding_of
from services.resolver.go.mod_file import read_go_mod
from services.resolver.go.names import QUERY, VERSION, above, is_path, is_remote, language_of, provider
from services.resolver.go.sources import MOD, SUM
from services.resolver.go.sum_file import read_go_sum
from services.resolver.go.table import package_table
from services.resolver.model import ImportFinding, LockLine, Notice, NoticeKind, Origin, OriginKind, Requirement, Source
from services.resolver.paths import join

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from services.resolver.go.detect import Detection, Detector
    from services.resolver.go.mod_file import ModFile
    from services.resolver.go.modules import Module, Modules
    from services.resolver.go.sources import Sources
    from services.resolver.go.target import Program
    from services.resolver.model import Options

ADDED = "what is to be added"
# Since this version, go.mod names all modules that packages come from, and is all that a reader needs.
COMPLETE_SINCE = (1, 17)
MAX_NOTICES = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a program needs; without `wanted`, nothing is installed. `lock_lines` are those of the lock that decides."""

    source: Source
    requirements: tuple[Requirement, ...] = ()
    manifests: tuple[str, ...] = ()
    wanted: Wanted | None = None
    undeclared: tuple[ImportFinding, ...] = ()
    unknown: tuple[ImportFinding, ...] = ()
    notices: tuple[Notice, ...] = ()
    lock_lines: tuple[LockLine, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Situation:
    """The workspace, its modules, the program, and what it imports."""

    sources: Sources
    modules: Modules
    program: Program
    detector: Detector
    reached: Detection
    options: Options
    toolchain: str

    @property
    def directory(self) -> str:
        """That of the program's module."""
        return self.modules.main.directory

    def default_mod(self) -> bytes:
        """A go.mod for a program that has none."""
        language = ".".join(self.toolchain.split(".")[:2])
        return f"module {self.modules.main.path}\n\ngo {language}\n".encode()


def detected_needs(situation: Situation) -> Needs:
    """What the imports ask for; a module path of the program's own also needs an environment, to be told there."""
    options, reached = situation.options, situation.reached
    found = reached.packages if options.detect or options.install_missing else {}
    imports, get = with_added(options, found, reached)
    undeclared = {path: origins for path, origins in reached.packages.items() if path not in imports}
    requirements = (*_requirements(found, ()), *added_requirements(options, found))
    wanted = None
    if imports or get or situation.modules.named or _needs_a_module(situation):
        files = installer.module_files(situation.directory, situation.default_mod(), b"")
        files |= local_imports(situation, imports, reached)
        wanted = Wanted(files=files, directory=situation.directory, solving=Solving.TIDY, get=get)
    return Needs(
        source=Source.DETECTED if requirements else Source.NONE,
        requirements=requirements,
        wanted=wanted,
        undeclared=tuple(findings(undeclared, join(situation.directory, MOD))),
        unknown=tuple(sorted_findings(reached.unknown)),
        notices=tuple(reached.notices),
    )


def declared_needs(situation: Situation, file: ModFile) -> Needs:
    """What go.mod asks for, and go.sum holds; what the code imports beyond that is added, and said."""
    modules, options, reached = situation.modules, situation.options, situation.reached
    required = {item.path for item in file.requires}
    beyond = {path: origins for path, origins in reached.packages.items() if not provider(path, required)}
    everything = situation.detector.everything()
    declared = {path for path in (*everything.packages, *reached.packages) if provider(path, required)}
    taken = beyond if options.detect or options.install_missing else {}
    extra, get = with_added(options, taken, reached)
    drift = [*_drift(situation, file), *_beyond(taken, file)]
    reached_siblings = _reached_siblings(situation)
    tidy = bool(drift or reached.further or reached_siblings)
    outside = [item for item in file.requires if not _is_local(item.path, modules)]
    wanted = None
    if outside or extra or get or reached.further or reached_siblings:
        everything.constrained |= reached.constrained
        wanted = _declared_wanted(situation, file, {*declared, *extra}, everything, tidy=tidy, get=get)
    sums = join(situation.directory, SUM)
    holds = wanted is not None and not tidy and not get
    return Needs(
        source=Source.LOCK if holds else Source.MANIFEST,
        requirements=(*_declared(file, modules), *_requirements(taken, ()), *added_requirements(options, taken)),
        manifests=(
            file.path,
            *([sums] if sums in situation.sources.tree else []),
            *_work(modules),
            *(module.manifest for module in reached_siblings),
        ),
        wanted=wanted,
        undeclared=tuple(findings({path: at for path, at in beyond.items() if path not in extra}, file.path)),
        unknown=tuple(sorted_findings(reached.unknown)),
        lock_lines=tuple(
            LockLine(name=item.path, version=item.version, path=file.path, line=item.line) for item in outside if holds
        ),
        notices=(*modules.notices, *drift, *_unused(file, everything), *_vendor(situation), *reached.notices),
    )


def with_preferences(wanted: Wanted, previous: bytes | None) -> Wanted:
    """The same, with the versions of the last install where go.mod does not say one; a broken lock is no preference."""
    if not previous or wanted.solving is not Solving.TIDY:
        return wanted
    try:
        bundle, locked = split(previous, "previous lock"), read_lock(previous)
        manifest = join(wanted.directory, MOD)
        present = {item.path for item in read_go_mod(wanted.files[manifest], manifest).requires}
    except (LockError, ManifestError):
        return wanted
    lines = [
        f"require {item.path} {item.version}{'' if item.direct else ' // indirect'}\n"
        for item in locked
        if item.path not in present
    ]
    sums = join(wanted.directory, SUM)
    files = {
        **wanted.files,
        manifest: wanted.files[manifest] + b"\n" + "".join(lines).encode(),
        sums: wanted.files.get(sums, b"") + b"\n" + bundle.sum,
    }
    return replace(wanted, files=files)


def _declared_wanted(
    situation: Situation, file: ModFile, imports: Collection[str], detection: Detection, *, tidy: bool, get: list[str]
) -> Wanted:
    sources, modules, directory = situation.sources, situation.modules, situation.directory
    mod = sources.files.get(file.path, b"") + _sibling_lines(modules, directory)
    files = installer.module_files(directory, mod, _sums(situation))
    files |= local_imports(situation, imports, detection)
    old = not _is_complete(file)
    return Wanted(
        files=files,
        directory=directory,
        solving=Solving.TIDY if tidy or old else Solving.LOCKED,
        get=get,
        language=".".join(map(str, COMPLETE_SINCE)) if old else "",
    )


def _sums(situation: Situation) -> bytes:
    """The go.sum of the program's module and of the local ones that it may import."""
    directories = [situation.directory, *(module.directory for module in situation.modules.local)]
    found = [situation.sources.files.get(join(directory, SUM), b"") for directory in dict.fromkeys(directories)]
    return b"\n".join(content for content in found if content.strip())


def local_imports(situation: Situation, imports: Collection[str], detection: Detection) -> dict[str, bytes]:
    """The package that stands for the program, and the local modules with the imports of each of their packages."""
    modules, sources = situation.modules, situation.sources
    elsewhere = detection.constrained.intersection(imports)
    files = installer.imports_files(situation.directory, {*imports, *detection.local}, elsewhere)
    for module in modules.local:
        files[module.manifest] = sources.files.get(module.manifest, b"")
        for place in sources.packages(module.directory):
            files |= _package_imports(sources, place)
    return files


def _package_imports(sources: Sources, place: str) -> dict[str, bytes]:
    table = package_table()
    found: dict[str, bool] = {}
    for path in sources.built(place):
        for item in sources.scan(path).imports:
            if is_path(item.path) and not table.is_standard(item.path):
                found[item.path] = found.get(item.path, True) and sources.is_constrained(path)
    return installer.imports_files(place, found, [path for path, elsewhere in found.items() if elsewhere])


def _sibling_lines(modules: Modules, directory: str) -> bytes:
    """What go.work says, in the words of a go.mod: directories in the place of modules."""
    lines = [f"replace {item.path} => {relative(directory, item.directory)}\n" for item in modules.siblings]
    return ("\n" + "".join(lines)).encode() if lines else b""


def relative(directory: str, other: str) -> str:
    """The path from one directory to another, as go.mod writes it."""
    up = "/".join([".."] * len(directory.split("/"))) if directory else "."
    return f"{up}/{other}".rstrip("/")


def _reached_siblings(situation: Situation) -> list[Module]:
    """The modules that the program reaches and only go.work brings."""
    return [
        module
        for module in situation.modules.siblings
        if module.directory
        and any(
            directory == module.directory or directory.startswith(f"{module.directory}/")
            for directory in situation.reached.directories
        )
    ]


def _needs_a_module(situation: Situation) -> bool:
    """Whether the go command must be in a module: for tests of many packages, and where it must choose files."""
    program, sources = situation.program, situation.sources
    if program.tests or program.bare:
        return True
    return any(sources.is_constrained(path) for path in sources.built(program.directory)) and not program.files


def _is_complete(file: ModFile) -> bool:
    return file.go is not None and language_of(file.go.text) >= COMPLETE_SINCE


def _is_local(path: str, modules: Modules) -> bool:
    return any(module.path == path for module in modules.local)


def _drift(situation: Situation, file: ModFile) -> list[Notice]:
    """Where go.mod and go.sum do not hold one version and its hash for each module."""
    path = join(situation.directory, SUM)
    sums = read_go_sum(situation.sources.files.get(path, b""), path)
    replaced = {(item.path, item.version): item for item in file.replaces if not item.is_local}
    found = []
    for item in file.requires:
        new = replaced.get((item.path, item.version)) or replaced.get((item.path, ""))
        key = (new.new_path, new.new_version) if new is not None else (item.path, item.version)
        if _is_local(item.path, situation.modules):
            continue
        if not VERSION.fullmatch(key[1]):
            detail = f"{key[1]} is not one version; what it is now is installed, and is in the lock"
            found.append(_drifted(file.path, item.line, item.path, detail))
        elif key not in sums.archives or key not in sums.mod_files:
            detail = f"go.sum has no hash of {key[1]}: `go mod tidy` writes it"
            found.append(_drifted(file.path, item.line, item.path, detail))
    return found[:MAX_NOTICES]


def _beyond(imported: dict[str, list[Origin]], file: ModFile) -> list[Notice]:
    """What the code imports and go.mod does not require, with the line to add."""
    return [
        _drifted(
            origins[0].path,
            origins[0].line,
            path,
            f"{file.path} does not require it, so it is added as `go mod tidy` does; add"
            f" `require {package_table().module_of(path)} latest`, or run `go mod tidy`",
        )
        for path, origins in sorted(imported.items())
    ][:MAX_NOTICES]


def _drifted(path: str, line: int, subject: str, detail: str) -> Notice:
    return Notice(kind=NoticeKind.LOCK_DRIFT, path=path, line=line, subject=subject, detail=detail)


def _unused(file: ModFile, everything: Detection) -> list[Notice]:
    """Direct requirements that no package of the module imports, and no tool comes from."""
    wanted = above([*everything.packages, *(tool.text for tool in file.tools)])
    return [
        Notice(
            kind=NoticeKind.UNUSED_REQUIREMENT,
            path=file.path,
            line=item.line,
            subject=item.path,
            detail="no package of the module imports it",
        )
        for item in file.requires
        if not item.indirect and item.path not in wanted
    ][:MAX_NOTICES]


def _vendor(situation: Situation) -> list[Notice]:
    path = join(situation.directory, "vendor/modules.txt")
    if path not in situation.sources.tree:
        return []
    detail = "modules come from go.mod, with the hashes of go.sum, and not from this directory"
    return [Notice(kind=NoticeKind.SETTING_IGNORED, path=path, subject="vendor", detail=detail)]


def _work(modules: Modules) -> list[str]:
    return [modules.work.path] if modules.work is not None else []


def _declared(file: ModFile, modules: Modules) -> list[Requirement]:
    return [
        Requirement(
            specifier=f"{item.path}@{item.version}",
            name=item.path,
            origins=(Origin(kind=OriginKind.MANIFEST, path=file.path, line=item.line),),
        )
        for item in sorted(file.requires, key=lambda item: item.path)
        if not item.indirect and not _is_local(item.path, modules)
    ]


def _requirements(imported: dict[str, list[Origin]], but: Collection[str]) -> list[Requirement]:
    """One requirement for each module that packages are imported from, as far as paths tell modules apart."""
    table = package_table()
    grouped: dict[str, list[Origin]] = {}
    for path, origins in sorted(imported.items()):
        module = table.module_of(path)
        if module not in but:
            grouped.setdefault(module, []).extend(origins)
    return [
        Requirement(specifier=f"{module}@latest", name=module, origins=tuple(origins))
        for module, origins in grouped.items()
    ]


def with_added(
    options: Options, found: dict[str, list[Origin]], reached: Detection
) -> tuple[dict[str, list[Origin]], list[str]]:
    """The imports to solve, and what beyond them the exec adds for the go command to get."""
    imports, get = dict(found), []
    for path, version in _added(options):
        if path in reached.packages and version == "latest":
            imports[path] = reached.packages[path]
        else:
            get.append(f"{path}@{version}")
    return imports, get


def _added(options: Options) -> list[tuple[str, str]]:
    """What the exec adds, as path and version. Raises ManifestError for what is no module."""
    found = []
    for text in options.added:
        path, _, version = text.strip().partition("@")
        version = version or "latest"
        if not is_path(path) or not is_remote(path) or not (VERSION.fullmatch(version) or QUERY.fullmatch(version)):
            raise ManifestError(path=ADDED, reason=f"{text[:100]!r} is not written module@version")
        found.append((path, version))
    return sorted(set(found))


def added_requirements(options: Options, found: Collection[str]) -> list[Requirement]:
    """What the exec adds and no import asks for."""
    origin = Origin(kind=OriginKind.ADDED, path="", line=0, note="asked for by the exec")
    return [
        Requirement(specifier=f"{path}@{version}", name=package_table().module_of(path), origins=(origin,))
        for path, version in _added(options)
        if path not in found
    ]


def findings(imported: dict[str, list[Origin]], manifest: str) -> list[ImportFinding]:
    """Imports that are not installed, with what to add to the manifest."""
    return sorted_findings(
        finding_of(path, origin.path, origin.line, manifest) for path, origins in imported.items() for origin in origins
    )


def sorted_findings(found: Iterable[ImportFinding]) -> list[ImportFinding]:
    """In order of file and line."""
    return sorted(found, key=lambda item: (item.path, item.line, item.module))
