"""Which manifest counts for a program, and what it declares.

The manifest beside the program wins over one further up. In one directory, requirements.txt wins over pyproject.toml:
it is what people install from, and often the other's lock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.model import Notice, NoticeKind
from services.resolver.python.manifests.pyproject import read_pyproject
from services.resolver.python.manifests.requirements_file import Declared, read_requirements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REQUIREMENTS_FILE = "requirements.txt"
PYPROJECT = "pyproject.toml"
INCLUDABLE = re.compile(r"(require|constraint|reqs?\b)", re.IGNORECASE)
INCLUDABLE_DIRECTORIES = frozenset({"requirements", "reqs"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What the author declared; `files` are the exact bytes that decide the install, by path."""

    files: Mapping[str, bytes]
    requirements: tuple[Declared, ...]
    constraints: tuple[Declared, ...] = ()
    notices: tuple[Notice, ...] = ()

    @property
    def is_lock(self) -> bool:
        """Whether it pins and hashes all that it names: then there is nothing to solve."""
        return bool(self.requirements) and all(item.hashes for item in self.requirements)


def is_includable(path: str) -> bool:
    """Whether a file is named like one that a requirements file includes."""
    directory, _, name = path.rpartition("/")
    if not name.endswith((".txt", ".in")):
        return False
    return bool(INCLUDABLE.search(name)) or directory.rpartition("/")[2] in INCLUDABLE_DIRECTORIES


def find_manifest(
    files: Mapping[str, bytes], directories: Sequence[str], python: str
) -> tuple[Manifest | None, tuple[Notice, ...]]:
    """The first manifest in the given directories, and notices of files that were passed over.

    Raises ManifestError.
    """
    notices: tuple[Notice, ...] = ()
    for directory in directories:
        prefix = f"{directory}/" if directory else ""
        requirements, pyproject = prefix + REQUIREMENTS_FILE, prefix + PYPROJECT
        if requirements in files:
            if pyproject in files:
                detail = f"{requirements} is used"
                notices += (Notice(kind=NoticeKind.MANIFEST_IGNORED, path=pyproject, subject=pyproject, detail=detail),)
            return _from_requirements(requirements, files, notices), notices
        project = read_pyproject(pyproject, files[pyproject], python) if pyproject in files else None
        if project is not None:
            if project.dynamic:
                detail = "its dependencies are computed at build time and were not read; list them in the file"
                kind = NoticeKind.DYNAMIC_DEPENDENCIES
                notices += (Notice(kind=kind, path=pyproject, subject=pyproject, detail=detail),)
            declared = {pyproject: files[pyproject]}
            return Manifest(files=declared, requirements=project.requirements, notices=notices), notices
        if pyproject in files:
            detail = "it has no [project] table"
            notices += (Notice(kind=NoticeKind.MANIFEST_IGNORED, path=pyproject, subject=pyproject, detail=detail),)
    return None, notices


def _from_requirements(path: str, files: Mapping[str, bytes], notices: tuple[Notice, ...]) -> Manifest:
    declarations = read_requirements(path, files)
    _check_hashes(declarations.requirements)
    return Manifest(
        files={read: files[read] for read in declarations.paths},
        requirements=tuple(declarations.requirements),
        constraints=tuple(declarations.constraints),
        notices=notices,
    )


def _check_hashes(requirements: Sequence[Declared]) -> None:
    """Hashes are all or nothing, and stand beside exact versions: what is half checked is not checked."""
    if not any(item.hashes for item in requirements):
        return
    for item in requirements:
        pins = [specifier for specifier in item.specifier.specifier if specifier.operator in {"==", "==="}]
        if not item.hashes or len(pins) != 1 or pins[0].version.endswith(".*"):
            reason = f"{item.specifier.name}: where one requirement has a hash, each needs a hash and an exact version"
            raise ManifestError(path=item.path, line=item.line, reason=reason)
