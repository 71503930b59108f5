"""What to tell about an import that nothing declares: the package, and the line to add to which manifest."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from services.resolver.model import ImportFinding
from services.resolver.python.manifests.readers import PYPROJECT, REQUIREMENTS_FILE
from services.resolver.python.names import is_generic, unknown_module
from services.resolver.python.table import import_table, standard_library

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.resolver.python.detection import Detection

POETRY = re.compile(rb"^\s*\[tool\.poetry\b", re.MULTILINE)
PROJECT = re.compile(rb"^\s*\[project\]", re.MULTILINE)
# Locks are written by tools: what stands in one is declared in the manifest beside it.
MANIFEST_OF_LOCK = {
    "uv.lock": PYPROJECT,
    "poetry.lock": PYPROJECT,
    "pdm.lock": PYPROJECT,
    "pylock.toml": PYPROJECT,
    "Pipfile.lock": "Pipfile",
}


def undeclared_imports(detection: Detection, declared: set[str]) -> list[ImportFinding]:
    """Imports that nothing declared provides. One that shares its name with a declared package is not among them."""
    modules = {name.replace("-", "_") for name in declared}
    missing = [
        ImportFinding(module=origin.module, path=origin.path, line=origin.line, suggestion=requirement.specifier)
        for requirement in detection.requirements.values()
        if requirement.name not in declared
        for origin in requirement.origins
        if origin.module.partition(".")[0].lower() not in modules
        and declared.isdisjoint(import_table().alternatives(origin.module))
    ]
    missing += [item for item in detection.unknown if item.module.partition(".")[0].lower() not in modules]
    return sorted(missing, key=lambda item: (item.path, item.line, item.module))


def describe(findings: Iterable[ImportFinding], manifests: Mapping[str, bytes]) -> tuple[ImportFinding, ...]:
    """The findings with the package that is suggested and where to declare it; `manifests` come in order."""
    manifest = manifest_to_edit(manifests)
    return tuple(_described(item, manifest, manifests.get(manifest, b"")) for item in findings)


def manifest_to_edit(manifests: Iterable[str]) -> str:
    """The manifest in which a new requirement belongs; the usual one, still to be written, if there is none."""
    first = next(iter(manifests), REQUIREMENTS_FILE)
    directory, _, name = first.rpartition("/")
    kept = MANIFEST_OF_LOCK.get(name, name)
    return f"{directory}/{kept}" if directory else kept


def declaration(manifest: str, content: bytes, specifier: str) -> str:
    """The text that declares a requirement, in the manifest's own notation."""
    name = manifest.rpartition("/")[2]
    if name == "Pipfile" or (name == PYPROJECT and POETRY.search(content) and not PROJECT.search(content)):
        parsed = Requirement(specifier)
        extras = f'{{ version = "{parsed.specifier or "*"}", extras = {sorted(parsed.extras)} }}'.replace("'", '"')
        return f"{parsed.name} = {extras}" if parsed.extras else f'{parsed.name} = "{parsed.specifier or "*"}"'
    if name in {PYPROJECT, "setup.py"}:
        return f'"{specifier}",'
    if name.endswith((".yml", ".yaml")):
        return f"- {specifier}"
    return f'#   "{specifier}",' if name.endswith(".py") else specifier


def finding_of_module(module: str, path: str, line: int, note: str = "") -> ImportFinding:
    """What a run told: this module is not there. A dotted name tells that its parent is."""
    provider = None if is_generic(module) else import_table().find(module)
    if provider is not None and "." in module and "." not in provider.module:
        note = note or f"{module.partition('.')[0]} is there and has no such module; another release may have it"
        return ImportFinding(module=module, path=path, line=line, note=note)
    if module.partition(".")[0] in standard_library().modules:
        note = note or "it belongs to Python, and the Python of a sandbox does not have it"
        return ImportFinding(module=module, path=path, line=line, note=note)
    if provider is None:
        return ImportFinding(module=module, path=path, line=line, note=note or unknown_module(module) or NOBODYS)
    return ImportFinding(module=module, path=path, line=line, suggestion=provider.requirement, note=note)


NOBODYS = "no package is known to provide it; it may be a file of one's own that is not there"


def _described(item: ImportFinding, manifest: str, content: bytes) -> ImportFinding:
    if not item.suggestion:
        return item
    try:
        package = str(canonicalize_name(Requirement(item.suggestion).name))
    except InvalidRequirement:
        return item
    return replace(
        item, package=package, manifest=manifest, declaration=declaration(manifest, content, item.suggestion)
    )
