"""What the imports of a program need, and what hints in its source add to that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.resolver.model import Notice, NoticeKind, Origin, OriginKind, Requirement
from services.resolver.python.names import is_generic, is_popular

if TYPE_CHECKING:
    from services.resolver.model import ImportFinding
    from services.resolver.python.hints import Hint
    from services.resolver.python.table import ImportTable

HINT_NOTE = "pip install in the source"


@dataclass(kw_only=True, slots=True)
class Detection:
    """What the reachable files need."""

    requirements: dict[str, Requirement] = field(default_factory=dict)
    unknown: list[ImportFinding] = field(default_factory=list)
    optional_skipped: list[ImportFinding] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    hints: list[tuple[str, Hint]] = field(default_factory=list)
    # The first parts of all that is imported and neither local nor Python's own.
    imported: set[str] = field(default_factory=set)


def apply_hints(found: Detection, table: ImportTable) -> None:
    """Let hints decide between the providers of a module, and provide what is unknown; the rest is only told.

    A hint counts only if its name is a popular one: a program that tells to install what nobody knows is not obeyed.
    """
    told: set[str] = set()
    for path, hint in found.hints:
        if hint.name in told or hint.name in found.requirements:
            continue
        told.add(hint.name)
        detail = "no import is known to need it"
        if not is_popular(hint.name):
            detail = "it is not a well-known package"
        elif replaced := _replaceable(found, hint, table):
            _replace(found, replaced, hint)
            detail = f"it is taken instead of {replaced.name}"
        elif provided := _provided(found, path, hint):
            _provide(found, provided, hint)
            detail = f"it is taken as what provides {provided[0].module}"
        notice = Notice(kind=NoticeKind.INSTALL_HINT, path=path, line=hint.line, subject=hint.name, detail=detail)
        found.notices.append(notice)


def _replaceable(found: Detection, hint: Hint, table: ImportTable) -> Requirement | None:
    """The requirement whose modules the hinted package provides as well."""
    for requirement in found.requirements.values():
        if all(hint.name in table.alternatives(origin.module) for origin in requirement.origins):
            return requirement
    return None


def _replace(found: Detection, requirement: Requirement, hint: Hint) -> None:
    del found.requirements[requirement.name]
    origins = tuple(_hinted(origin.path, origin.line, origin.module) for origin in requirement.origins)
    found.requirements[hint.name] = Requirement(specifier=hint.specifier, name=hint.name, origins=origins)


def _provided(found: Detection, path: str, hint: Hint) -> list[ImportFinding]:
    """The unknown imports that the hint speaks of: by its name, or because it stands on their line or above it."""
    named = hint.name.replace("-", "").removeprefix("python").removeprefix("py")
    own = [item for item in found.unknown if item.path == path and not is_generic(item.module)]
    beside = [item for item in own if item.line == hint.line] or [item for item in own if item.line == hint.line + 1]
    tops = {item.module.partition(".")[0] for item in beside}
    return [
        item
        for item in found.unknown
        if (top := item.module.partition(".")[0]) in tops
        or top.lower().replace("_", "") in {named, f"py{named}", f"python{named}"}
    ]


def _provide(found: Detection, provided: list[ImportFinding], hint: Hint) -> None:
    found.unknown = [item for item in found.unknown if item not in provided]
    origins = tuple(_hinted(item.path, item.line, item.module) for item in provided)
    found.requirements[hint.name] = Requirement(specifier=hint.specifier, name=hint.name, origins=origins)


def _hinted(path: str, line: int, module: str) -> Origin:
    return Origin(kind=OriginKind.IMPORT, path=path, line=line, module=module, note=HINT_NOTE)
