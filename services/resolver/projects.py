"""All projects of a workspace: the directories with a manifest, each with an environment of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.resolver.model import ROOT_PROJECT, Launch, Notice, NoticeKind, Options, Plans, Source, Target
from services.resolver.paths import with_parents
from services.resolver.plan import plan_with
from services.resolver.planner import PLANNERS, planner_for
from services.resolver.selection import own_files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from services.resolver.model import Context, Plan
    from services.resolver.planner import Planner

MAX_PROJECTS = 32
MAX_DEPTH = 8
# What builds write, and what others wrote: no project of the workspace's own.
PASSED_OVER = frozenset({"_build", "build", "dist", "out", "target", "testdata", "third_party", "vendor"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """A directory with manifests of one ecosystem: their paths."""

    planner: Planner
    directory: str
    manifests: tuple[str, ...]


def plan_all(files: Mapping[str, bytes], tree: Iterable[str], target: Target, context: Context) -> Plans:
    """Plan one run of a workspace, and the environments of all its other projects.

    A project that another one's environment takes in is not planned by itself. Raises what `plan` raises.
    """
    own = own_files(tree)
    planner = planner_for(own, target)
    program = plan_with(planner, files, own, target, context)
    program = replace(program, project=_project_of(planner, program, target, files))
    projects, left_out = plan_projects(files, own, context, [program])
    return Plans(program=replace(program, notices=(*program.notices, *left_out)), projects=projects)


def plan_projects(
    files: Mapping[str, bytes], own: Sequence[str], context: Context, before: Sequence[Plan] = ()
) -> tuple[tuple[Plan, ...], tuple[Notice, ...]]:
    """The environments of all projects that no plan before takes in, and a notice of those beyond the bounds."""
    projects, left_out = find_projects([path for path in own if path in files])
    others = replace(context, options=Options(detect=context.options.detect, scripts=context.options.scripts))
    plans = list(before)
    # What lies deeper first: a module leads to the root of its workspace, and not the other way round.
    for project in sorted(projects, key=lambda item: -_depth(item.directory)):
        if any(_is_taken_in(project, item) for item in plans):
            continue
        planned = _plan_project(project, files, own, others)
        if _counts(planned, project, files, plans):
            plans.append(planned)
    order = {(item.planner.ecosystem, item.directory or ROOT_PROJECT): number for number, item in enumerate(projects)}
    found = sorted(plans[len(before) :], key=lambda item: order[item.ecosystem, item.project])
    return tuple(found), left_out


def find_projects(paths: Sequence[str]) -> tuple[list[Project], tuple[Notice, ...]]:
    """The projects among the workspace's own files, nearest to the root first, and a notice of those beyond."""
    found: dict[tuple[int, str, int], list[str]] = {}
    for path in paths:
        directory = path.rpartition("/")[0]
        for number, planner in enumerate(PLANNERS):
            if planner.declares(path) and not _is_passed_over(directory):
                found.setdefault((_depth(directory), directory, number), []).append(path)
    keys = sorted(found)
    taken = [key for key in keys if key[0] <= MAX_DEPTH][:MAX_PROJECTS]
    left = [key for key in keys if key not in taken]
    projects = [
        Project(planner=PLANNERS[key[2]], directory=key[1], manifests=tuple(sorted(found[key]))) for key in taken
    ]
    return projects, _left_out([found[key][0] for key in left])


def _left_out(paths: Sequence[str]) -> tuple[Notice, ...]:
    if not paths:
        return ()
    others = f", and {len(paths) - 1} more were not" if len(paths) > 1 else ""
    detail = f"at most {MAX_PROJECTS} projects are, in directories at most {MAX_DEPTH} deep{others}"
    return (Notice(kind=NoticeKind.PROJECTS_LEFT_OUT, path=paths[0], subject=paths[0], detail=detail),)


def _plan_project(project: Project, files: Mapping[str, bytes], own: Sequence[str], context: Context) -> Plan:
    directory = project.directory or ROOT_PROJECT
    planned = plan_with(project.planner, files, own, Target(project=directory), context)
    return replace(planned, project=directory, launch=Launch(argv=()))


def _counts(planned: Plan, project: Project, files: Collection[str], others: Sequence[Plan]) -> bool:
    """Whether the project itself declares something, and no plan before has the same environment."""
    if planned.source not in {Source.LOCK, Source.MANIFEST}:
        return False
    # A lock from outside decides, whatever lies in the workspace.
    given = not any(path in files for path in planned.manifests)
    if not given and set(project.manifests).isdisjoint(planned.manifests):
        return False
    return not planned.fingerprint or planned.fingerprint not in {item.fingerprint for item in others}


def _is_taken_in(project: Project, planned: Plan) -> bool:
    if planned.ecosystem != project.planner.ecosystem:
        return False
    same = planned.project == (project.directory or ROOT_PROJECT)
    return same or not set(project.manifests).isdisjoint(planned.manifests)


def _project_of(planner: Planner, planned: Plan, target: Target, files: Collection[str]) -> str:
    """Where the program's manifest lies, or the next one above it that the lines of its own stand for."""
    declared = next((path for path in planned.manifests if path in files and planner.declares(path)), None)
    if declared is not None:
        return declared.rpartition("/")[0] or ROOT_PROJECT
    directory = target.program.removeprefix("./").rpartition("/")[0]
    places = {path.rpartition("/")[0] for path in files if planner.declares(path)}
    return next((place for place in with_parents(directory) if place in places), directory) or ROOT_PROJECT


def _depth(directory: str) -> int:
    return directory.count("/") + 1 if directory else 0


def _is_passed_over(directory: str) -> bool:
    return any(part in PASSED_OVER or part.startswith(".") for part in directory.split("/"))
