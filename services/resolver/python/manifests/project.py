"""What a project's own file says, in the same words for every form: dependencies, extras, groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from services.resolver.errors import ManifestError, ToolchainError
from services.resolver.python.manifests.requirements_file import MAX_LINES, Declared

if TYPE_CHECKING:
    from services.resolver.model import Notice
    from services.resolver.python.manifests.request import Request

# Read only when somebody asks for it: what nobody installs need not be installable.
Choice = Callable[[], Sequence[Declared]]
NOT_READ: Mapping[str, Choice] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """What one manifest declares; extras and groups by canonical name.

    `dynamic` says that its dependencies are computed when it is built. `files` are the paths of all files read.
    """

    path: str
    name: str = ""
    requirements: tuple[Declared, ...] = ()
    extras: Mapping[str, Choice] = field(default_factory=dict)
    groups: Mapping[str, Choice] = field(default_factory=dict)
    constraints: tuple[Declared, ...] = ()
    notices: tuple[Notice, ...] = ()
    files: tuple[str, ...] = ()
    dynamic: bool = False

    @property
    def declares(self) -> bool:
        """Whether it says what is to be installed, even if that is nothing."""
        return not self.dynamic or bool(self.requirements)


def chosen_requirements(project: Project, extras: Sequence[str], groups: Sequence[str]) -> list[Declared]:
    """The dependencies with those of the extras and groups that were asked for.

    Raises ManifestError for one that is not there. A dependency on the project itself stands for its extras.
    """
    found = list(project.requirements)
    pending = [_choice(project, "group", project.groups, name) for name in groups]
    pending += [_choice(project, "extra", project.extras, name) for name in extras]
    taken = set(extras)
    while pending:
        for item in pending.pop(0)():
            if project.name and canonicalize_name(item.specifier.name) == project.name:
                wanted = {str(canonicalize_name(extra)) for extra in item.specifier.extras} - taken
                pending += [_choice(project, "extra", project.extras, name) for name in sorted(wanted)]
                taken |= wanted
            else:
                found.append(item)
        if len(found) > MAX_LINES:
            raise ManifestError(path=project.path, reason=f"more than {MAX_LINES} requirements")
    return found


def _choice(project: Project, kind: str, choices: Mapping[str, Choice], name: str) -> Choice:
    if name in choices:
        return choices[name]
    raise missing_choice(project.path, kind, name, choices)


def missing_choice(path: str, kind: str, name: str, known: Mapping[str, object]) -> ManifestError:
    """An extra or a group was asked for that is not there; the error lists those that are."""
    listed = f"it has {', '.join(sorted(known)[:50])}" if known else "it has none"
    return ManifestError(path=path, reason=f"no {kind} named {name[:80]!r}; {listed}")


def check_python(path: str, line: int, wanted: object, request: Request, key: str = "requires-python") -> None:
    """Raise ManifestError if a project refuses the sandbox's Python; None is no wish."""
    if wanted is None:
        return
    try:
        specifiers = SpecifierSet(str(wanted))
    except InvalidSpecifier as error:
        reason = f"{key} is not a version specifier: {str(wanted)[:80]!r}"
        raise ManifestError(path=path, line=line, reason=reason) from error
    if request.python not in specifiers:
        raise left_out(path, line, f"{key} {str(wanted)[:80]!r}", request.python, specifiers.contains)


def left_out(path: str, line: int, wish: str, python: str, fits: Callable[[str], bool]) -> ToolchainError:
    """What refuses the sandbox's Python: `wish` words it, `fits` tells of another full version whether it would do."""
    reason = f"{wish} leaves out Python {python}, which the sandbox has"
    return ToolchainError(path=path, line=line, reason=reason, tool="python", word="Python", fits=fits)
