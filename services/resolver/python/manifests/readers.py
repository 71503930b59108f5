"""Each manifest's reader by the file's name, and what all of them come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from services.resolver.errors import ManifestError
from services.resolver.model import Notice, NoticeKind
from services.resolver.python.manifests.conda import read_conda
from services.resolver.python.manifests.manifest import Manifest, check_hashes
from services.resolver.python.manifests.pipfile import read_pipfile
from services.resolver.python.manifests.project import Project, chosen_requirements, missing_choice
from services.resolver.python.manifests.pyproject import read_pyproject
from services.resolver.python.manifests.request import Request, canonical_names
from services.resolver.python.manifests.requirements_file import REFUSED_OPTIONS, Declarations, read_requirements
from services.resolver.python.manifests.setuptools import read_setup_cfg, read_setup_py

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

REQUIREMENTS_FILE = "requirements.txt"
REQUIREMENTS_SOURCE = "requirements.in"
PYPROJECT = "pyproject.toml"
SETUP_CFG = "setup.cfg"
SETUP_PY = "setup.py"
DYNAMIC = "its dependencies are computed at build time and were not read; list them in the file"
CONDA_RULE = (
    "conda packages are not installed; one counts as the package of that name on PyPI only if the program imports what "
    "that provides. Put what it needs into the pip section"
)
# Files that often say nothing about dependencies, and the word without which they do not.
MENTIONS = MappingProxyType({PYPROJECT: b"dependencies", SETUP_CFG: b"install_requires", SETUP_PY: b"install_requires"})

Reader = Callable[[str, Request, list[Notice]], Manifest | None]


def read(path: str, request: Request, notices: list[Notice]) -> Manifest | None:
    """What a manifest declares; None, and perhaps a notice, if it says nothing. Raises ManifestError."""
    return READERS[path.rpartition("/")[2]](path, request, notices)


def reading_order(request: Request) -> Sequence[str]:
    """The names in the order in which they count. Who asks for extras or groups means a file that can have some."""
    if request.extras or request.groups:
        return sorted(READERS, key=lambda name: name in {REQUIREMENTS_FILE, REQUIREMENTS_SOURCE})
    return tuple(READERS)


def passed_over(path: str, detail: str) -> Notice:
    """A notice of a manifest that does not count."""
    return Notice(kind=NoticeKind.MANIFEST_IGNORED, path=path, subject=path, detail=detail)


def mentions_dependencies(path: str, request: Request) -> bool:
    """Whether passing over a file is worth a notice."""
    return MENTIONS.get(path.rpartition("/")[2], b"") in request.files[path]


def of_project(project: Project, request: Request) -> Manifest:
    """What a project declares, with the extras and groups that were asked for; raises ManifestError."""
    requirements = chosen_requirements(project, request.extras, request.groups)
    paths = dict.fromkeys((*project.files, *(item.path for item in requirements)))
    return Manifest(
        files={path: request.files[path] for path in paths},
        requirements=tuple(requirements),
        constraints=project.constraints,
        notices=project.notices,
    )


def _requirements(path: str, request: Request, notices: list[Notice]) -> Manifest:
    del notices
    declarations = read_requirements(path, request)
    manifest = _of_declarations(path, declarations, request)
    _refuse_choices(path, request)
    return manifest


def _of_declarations(path: str, declarations: Declarations, request: Request) -> Manifest:
    """What lines of requirements declare; the workspace's own project stands for its dependencies."""
    requirements = list(declarations.requirements)
    paths = list(declarations.paths)
    directory = path.rpartition("/")[0]
    for own in declarations.projects:
        project = _own_project(f"{directory}/" if directory else "", request)
        if project is None:
            raise ManifestError(path=own.path, line=own.line, reason=REFUSED_OPTIONS["-e"])
        requirements += chosen_requirements(project, canonical_names(own.extras), ())
        paths += project.files
    check_hashes(declarations.requirements, required=declarations.hashes_required)
    return Manifest(
        files={read: request.files[read] for read in dict.fromkeys(paths)},
        requirements=tuple(requirements),
        constraints=tuple(declarations.constraints),
        notices=tuple(declarations.notices),
    )


def _own_project(prefix: str, request: Request) -> Project | None:
    """The project in a directory, if a file there declares its dependencies."""
    for name, reader in ((PYPROJECT, read_pyproject), (SETUP_CFG, read_setup_cfg), (SETUP_PY, read_setup_py)):
        project = reader(prefix + name, request) if prefix + name in request.files else None
        if project is not None and project.declares:
            return project
    return None


def _refuse_choices(path: str, request: Request) -> None:
    """A file without extras and groups cannot give any."""
    for kind, names in (("extra", request.extras), ("group", request.groups)):
        if names:
            raise missing_choice(path, kind, names[0], {})


def _pyproject(path: str, request: Request, notices: list[Notice]) -> Manifest | None:
    project = read_pyproject(path, request)
    if project is None:
        notices.append(passed_over(path, "it has no [project] table"))
        return None
    if not project.declares:
        # What setuptools computes may stand in its other files.
        prefix = path.removesuffix(PYPROJECT)
        for name, reader in ((SETUP_CFG, read_setup_cfg), (SETUP_PY, read_setup_py)):
            other = reader(prefix + name, request) if prefix + name in request.files else None
            if other is not None and other.declares:
                return of_project(_joined(project, other), request)
        notices.append(_dynamic(path))
    return of_project(project, request)


def _joined(project: Project, other: Project) -> Project:
    """A pyproject.toml whose dependencies stand in setuptools' other files."""
    return Project(
        path=project.path,
        name=project.name or other.name,
        requirements=other.requirements,
        extras={**other.extras, **project.extras},
        groups=project.groups,
        constraints=project.constraints,
        notices=(*project.notices, *other.notices),
        files=(*project.files, *other.files),
    )


def _dynamic(path: str) -> Notice:
    return Notice(kind=NoticeKind.DYNAMIC_DEPENDENCIES, path=path, subject=path, detail=DYNAMIC)


def _setup_cfg(path: str, request: Request, notices: list[Notice]) -> Manifest | None:
    del notices
    project = read_setup_cfg(path, request)
    return None if project is None else of_project(project, request)


def _setup_py(path: str, request: Request, notices: list[Notice]) -> Manifest | None:
    project = read_setup_py(path, request)
    if project is not None and not project.declares:
        notices.append(_dynamic(path))
    return of_project(project, request) if project is not None and project.declares else None


def _pipfile(path: str, request: Request, notices: list[Notice]) -> Manifest:
    del notices
    return of_project(read_pipfile(path, request), request)


def _conda(path: str, request: Request, notices: list[Notice]) -> Manifest | None:
    del notices
    environment = read_conda(path, request)
    _refuse_choices(path, request)
    manifest = _of_declarations(path, environment.pip, request)
    others = tuple(conda_notice(path, line, name) for name, line in environment.others)
    return Manifest(
        files=manifest.files,
        requirements=manifest.requirements,
        constraints=manifest.constraints,
        notices=(*manifest.notices, *others),
        importable=environment.packages,
    )


def keep_imported(manifest: Manifest, imported: Collection[str]) -> tuple[Manifest | None, tuple[Notice, ...]]:
    """The manifest with those of its importable packages that the program imports, and notices of the others.

    If nothing is left to install it is passed over: then it says nothing that can be followed.
    """
    kept = [item for item in manifest.importable if canonicalize_name(item.specifier.name) in imported]
    left = [item for item in manifest.importable if item not in kept]
    notices = tuple(conda_notice(item.path, item.line, item.specifier.name) for item in left)
    if kept or manifest.requirements or not manifest.importable:
        return replace(manifest, requirements=(*manifest.requirements, *kept), importable=()), notices
    return None, (*manifest.notices, *notices)


def conda_notice(path: str, line: int, name: str) -> Notice:
    """A notice of a conda package that is not installed, and why."""
    return Notice(kind=NoticeKind.MANIFEST_IGNORED, path=path, line=line, subject=name, detail=CONDA_RULE)


READERS: Mapping[str, Reader] = MappingProxyType(
    {
        REQUIREMENTS_FILE: _requirements,
        REQUIREMENTS_SOURCE: _requirements,
        PYPROJECT: _pyproject,
        "Pipfile": _pipfile,
        SETUP_CFG: _setup_cfg,
        SETUP_PY: _setup_py,
        "environment.yml": _conda,
        "environment.yaml": _conda,
    }
)
