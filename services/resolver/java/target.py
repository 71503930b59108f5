"""Which class is the program, and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError, ManifestTooLargeError, TargetAmbiguousError, TargetNotFoundError
from services.resolver.java import sources as layout
from services.resolver.java.scan import SUFFIX
from services.resolver.java.sources import is_source, package_root
from services.resolver.paths import join

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from services.resolver.java.declared import Declared
    from services.resolver.java.jbang import Directives
    from services.resolver.java.sources import SourceTree
    from services.resolver.model import Target

USUAL_ENTRIES = ("Main.java", "App.java", "Application.java", "Program.java", "HelloWorld.java", "Server.java")
MAX_CANDIDATES = 10
MAX_LISTED = 100
TESTS = "test"
JUNIT, JUNIT_4, TESTNG = "junit", "junit4", "testng"


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """What is run: a class, or tests by a `runner`.

    `places` are what is compiled: files and directories; `sources` are the files that this means.
    """

    path: str = ""
    main_class: str = ""
    places: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    jars: tuple[str, ...] = ()
    preview: bool = False
    runner: str = ""
    test_classes: tuple[str, ...] = ()

    @property
    def with_tests(self) -> bool:
        """Whether dependencies of tests count."""
        return bool(self.runner)


def is_test_path(path: str) -> bool:
    """Whether a source lies where tests lie."""
    return f"/{layout.TEST}/" in f"/{path}"


def entry_of(tree: SourceTree, target: Target, main_class: str) -> str:
    """The path of the program; raises TargetNotFoundError, TargetAmbiguousError."""
    if target.program:
        return _named(tree, target.program.removeprefix("./"), target.program)
    wanted = target.module or main_class
    programs = [path for path in sorted(tree.files, key=lambda path: (path.count("/"), path)) if _may_start(tree, path)]
    if wanted:
        for path in programs:
            found = tree.scan(path)
            if wanted in {_full(found.package, name) for name in found.mains}:
                return path
        if target.module:
            raise TargetNotFoundError(program=wanted, what="class with a main method")
    candidates = [path for path in programs if not is_test_path(path)]
    candidates = [path for path in candidates if tree.scan(path).mains or tree.scan(path).unnamed]
    usual = [path for path in candidates if path.rpartition("/")[2] in USUAL_ENTRIES]
    nearest = [path for path in usual if path.count("/") == usual[0].count("/")]
    if len(candidates) == 1:
        return candidates[0]
    if nearest:
        order = [name for name in USUAL_ENTRIES if any(path.endswith(name) for path in nearest)]
        best = [path for path in nearest if path.rpartition("/")[2] == order[0]]
        if len(best) == 1:
            return best[0]
    if candidates:
        raise TargetAmbiguousError(candidates=tuple(candidates[:MAX_CANDIDATES]))
    raise TargetNotFoundError(program="", candidates=())


def program_of(
    tree: SourceTree, path: str, declared: Declared | None, directives: Directives, main_class: str
) -> Program:
    """What the program at a path is made of."""
    found = tree.scan(path)
    places, resources = _places(tree, path, declared, directives, tests=is_test_path(path))
    sources = _sources(tree, places)
    stem = path.rpartition("/")[2].removesuffix(SUFFIX)
    name = stem if found.unnamed else _main_name(path, found.package, found.mains, main_class)
    runner = ""
    classes: tuple[str, ...] = ()
    if not name:
        if not found.tests:
            raise ManifestError(path=path, reason="has no main method, and no tests", line=found.broken_line)
        runner = runner_of(tree, [path])
        classes = tuple(_full(found.package, item) for item in found.types)
    return Program(
        path=path,
        main_class=name,
        places=places,
        sources=sources,
        resources=resources,
        jars=tuple(tree.jars({"", declared.directory if declared else ""})),
        preview=directives.preview or any(tree.scan(item).preview for item in sources),
        runner=runner,
        test_classes=classes,
    )


def tests_of(tree: SourceTree, directory: str, declared: Declared | None, directives: Directives) -> Program:
    """All tests of a module."""
    paths = [path for path in tree.below(directory) if tree.scan(path).tests]
    if not paths:
        raise TargetNotFoundError(program=TESTS, what="test of JUnit or TestNG")
    # Of several modules, those of the first.
    places, resources = _places(tree, paths[0], declared, directives, tests=True)
    sources = _sources(tree, places)
    own = [path for path in paths if path in sources]
    classes = [_full(tree.scan(path).package, name) for path in own for name in tree.scan(path).types[:1]]
    return Program(
        places=places,
        sources=sources,
        resources=resources,
        jars=tuple(tree.jars({"", directory})),
        preview=any(tree.scan(item).preview for item in sources),
        runner=runner_of(tree, own),
        test_classes=tuple(classes),
    )


def runner_of(tree: SourceTree, paths: Sequence[str]) -> str:
    """What runs these tests, by what they import."""
    names = {item.name for path in paths for item in tree.scan(path).imports}
    if any(name.startswith("org.junit.jupiter.") for name in names):
        return JUNIT
    return TESTNG if any(name.startswith("org.testng.") for name in names) else JUNIT_4


def _named(tree: SourceTree, path: str, wanted: str) -> str:
    if path in tree.files and is_source(path):
        return path
    name = path.rpartition("/")[2]
    alike = sorted(item for item in tree.tree if item.rpartition("/")[2] == name)
    if path in alike:
        reason = "is too large, or no program" if path.endswith(SUFFIX) else "is no program of Java"
        raise ManifestTooLargeError(path=path, reason=reason)
    raise TargetNotFoundError(program=wanted, candidates=tuple(alike[:MAX_CANDIDATES]))


def _may_start(tree: SourceTree, path: str) -> bool:
    return is_source(path) and "main" in tree.outline(path).words


def _full(package: str, name: str) -> str:
    return f"{package}.{name}" if package else name


def _main_name(path: str, package: str, mains: Collection[str], wanted: str) -> str:
    names = [_full(package, name) for name in mains]
    if wanted in names:
        return wanted
    stem = path.rpartition("/")[2].removesuffix(SUFFIX)
    own = _full(package, stem)
    return own if own in names else names[0] if names else ""


def _places(
    tree: SourceTree, path: str, declared: Declared | None, directives: Directives, *, tests: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is compiled, and the directories of resources."""
    module = _module_of(path, declared)
    if module is None:
        return _reached(tree, path, directives, tests=tests)
    directories: list[tuple[str, Declared | None]] = [(module, declared)]
    directories += [(item, None) for item in (declared.local if declared else ())]
    places: list[str] = []
    resources: list[str] = []
    for directory, manifest in directories:
        own = manifest.source_directory if manifest else ""
        places.append(join(directory, own or f"{layout.MAIN}/java"))
        resources.append(join(directory, f"{layout.MAIN}/resources"))
    if tests:
        own = declared.test_directory if declared else ""
        places.append(join(module, own or f"{layout.TEST}/java"))
        resources.append(join(module, f"{layout.TEST}/resources"))
    return tuple(place for place in places if tree.below(place)), tuple(
        place for place in resources if tree.holds(place)
    )


def _reached(
    tree: SourceTree, path: str, directives: Directives, *, tests: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sources that a program leads to; resources lie where its packages begin."""
    root = package_root(path, tree.scan(path).package)
    starts = [path, *_listed(tree, directives.sources)]
    if tests:
        starts = [item for item in tree.below(root) if tree.scan(item).tests] or starts
    reached = tree.reached(starts, root)
    places = tuple(reached) if len(reached) <= MAX_LISTED else (root or ".",)
    return places, (root or ".",)


def _module_of(path: str, declared: Declared | None) -> str | None:
    """The directory of the module that a source belongs to, if it is laid out as Maven and Gradle expect it."""
    if declared is not None and declared.source_directory:
        place = join(declared.directory, declared.source_directory)
        if path.startswith(f"{place}/"):
            return declared.directory
    for kind in (layout.MAIN, layout.TEST):
        before, mark, _ = f"/{path}".partition(f"/{kind}/java/")
        if mark:
            return before.removeprefix("/")
    return None


def _listed(tree: SourceTree, patterns: Sequence[str]) -> list[str]:
    """The sources that JBang's lines name."""
    return [path for path in sorted(tree.files) if any(fnmatchcase(path, item) for item in patterns)]


def _sources(tree: SourceTree, places: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for place in places:
        found += [place] if place in tree.files else tree.below("" if place == "." else place)
    unread = [path for path in tree.tree if is_source(path) and path not in tree.files and _is_below(path, places)]
    if unread:
        raise ManifestTooLargeError(path=unread[0], reason="is too large to be compiled here; split it")
    return tuple(dict.fromkeys(found))


def _is_below(path: str, places: Sequence[str]) -> bool:
    return any(place == "." or path.startswith(f"{place}/") for place in places)
