"""Requirements that nothing imports, as far as the table can tell, and names in manifests that mislead."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from services.resolver.model import Notice, NoticeKind
from services.resolver.python.modules import SOURCE_SUFFIXES
from services.resolver.python.names import confusion, is_popular, nearest
from services.resolver.python.table import data_text, import_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.resolver.python.detection import Detection
    from services.resolver.python.manifests.requirements_file import Declared

# How much text may be searched for mentions; more than a wide workspace has, and still no second's work.
MAX_SEARCHED_BYTES = 256 * 1024 * 1024
# A list this long in which nearly all is pinned was written by a tool, with all that the requirements require.
FROZEN_FROM = 8
FROZEN_SHARE = 0.8


def misleading_names(requirements: Iterable[Declared]) -> list[Notice]:
    """Notices of requirements that are known to be taken for others, or are one letter from a popular name."""
    notices = []
    for item in requirements:
        name = str(canonicalize_name(item.specifier.name))
        detail, kind = confusion(name), NoticeKind.NAME_CONFUSED
        if not detail and not is_popular(name) and name not in distributions():
            near = nearest(name)
            detail, kind = (f"did you mean {near}?" if near else ""), NoticeKind.NAME_UNKNOWN
        if detail:
            notices.append(Notice(kind=kind, path=item.path, line=item.line, subject=name, detail=detail))
    return notices


def unused_requirements(
    requirements: Sequence[Declared], detection: Detection, files: Mapping[str, bytes], words: Iterable[str]
) -> list[Notice]:
    """Notices of requirements that no file imports or mentions; `words` are those of the command that is run.

    It is said only of packages whose modules the table knows, and that are not used without an import.
    """
    if _is_frozen(requirements):
        return []
    told = {word.replace("-", "_").lower() for word in words}
    imported = {name.lower() for name in detection.imported} | told
    candidates = [item for item in requirements if _is_candidate(item, imported)]
    sources = [content for path, content in files.items() if path.endswith((*SOURCE_SUFFIXES, ".ipynb"))]
    if not candidates or len(candidates) * sum(map(len, sources)) > MAX_SEARCHED_BYTES:
        return []
    return [
        Notice(kind=NoticeKind.UNUSED_REQUIREMENT, path=item.path, line=item.line, subject=item.specifier.name)
        for item in candidates
        if not any(_mentions(content, item) for content in sources)
    ]


@cache
def distributions() -> Mapping[str, frozenset[str]]:
    """The first parts of the modules of each distribution that the table knows, made once in a process."""
    found: dict[str, set[str]] = {}
    table = import_table()
    for module, row in table.modules.items():
        main, _, others = row.partition("\t")
        for name in (main or str(canonicalize_name(module)), *others.split()):
            found.setdefault(name, set()).add(module.partition(".")[0])
    for module, requirement in table.aliases.items():
        found.setdefault(requirement.partition("<")[0], set()).add(module.partition(".")[0])
    return {name: frozenset(modules) for name, modules in found.items()}


@cache
def _never_imported() -> tuple[frozenset[str], tuple[tuple[str, ...], tuple[str, ...]]]:
    """Names, and the starts and ends of names, of distributions that are used without an import."""
    words = [word for line in data_text("never_imported.txt").splitlines() if line[:1] != "#" for word in line.split()]
    starts = tuple(word[:-1] for word in words if word.endswith("*"))
    ends = tuple(word[1:] for word in words if word.startswith("*"))
    return frozenset(words), (starts, ends)


def _is_candidate(item: Declared, imported: set[str]) -> bool:
    name = str(canonicalize_name(item.specifier.name))
    modules = {module.lower() for module in distributions().get(name, ())}
    names, (starts, ends) = _never_imported()
    by_name = name in names or name.startswith(starts) or name.endswith(ends)
    return bool(modules) and not by_name and imported.isdisjoint({*modules, name.replace("-", "_")})


def _mentions(content: bytes, item: Declared) -> bool:
    name = str(canonicalize_name(item.specifier.name))
    words = {name, name.replace("-", "_"), item.specifier.name, *distributions()[name]}
    return any(word.encode() in content for word in words)


def _is_frozen(requirements: Sequence[Declared]) -> bool:
    pinned = sum(any(part.operator == "==" for part in item.specifier.specifier) for item in requirements)
    return len(requirements) >= FROZEN_FROM and pinned >= FROZEN_SHARE * len(requirements)
