"""Which import kept a program from being built, from the end of its stderr."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from services.resolver.go.names import is_path, is_remote
from services.resolver.go.sources import MOD
from services.resolver.go.table import package_table
from services.resolver.model import ImportFinding

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_OUTPUT = 64 * 1024
MAX_FINDINGS = 50
PLACE = r"^(?:(?P<path>[^\s:][^\n:]{0,4096}\.go):(?P<line>\d{1,9})(?::\d{1,9})?: |go: |package \S{1,400}: )?"
MODULE = r"(?P<module>[^\s:;'\"()]{1,400})"
MISSING = (
    re.compile(rf"{PLACE}no required module provides package {MODULE}", re.MULTILINE),
    re.compile(rf"{PLACE}cannot find module providing package {MODULE}", re.MULTILINE),
    re.compile(rf"{PLACE}package {MODULE} is not in std\b", re.MULTILINE),
    re.compile(rf"{PLACE}missing go\.sum entry for module providing package {MODULE}", re.MULTILINE),
    re.compile(rf"{PLACE}module {MODULE} provides package \S+ and is replaced but not required", re.MULTILINE),
)


def explain_run(output: bytes, manifests: Sequence[str]) -> list[ImportFinding]:
    """The imports that the go command did not find."""
    text = output[-MAX_OUTPUT:].decode("utf-8", "replace").replace("\r\n", "\n")
    found: dict[str, ImportFinding] = {}
    manifest = next((name for name in manifests if name.rpartition("/")[2] == MOD), MOD)
    for pattern in MISSING:
        for match in pattern.finditer(text):
            module = match["module"]
            if module not in found and len(found) < MAX_FINDINGS:
                line = int(match["line"] or 0)
                found[module] = finding_of(module, (match["path"] or "").removeprefix("./"), line, manifest)
    return list(found.values())


def finding_of(module: str, path: str, line: int, manifest: str, note: str = "") -> ImportFinding:
    """An import that nothing declared provides, and what to add where if a module can be named."""
    table = package_table()
    doubt = note or table.note(module)
    if not is_path(module) or not is_remote(module) or doubt or table.is_standard(module):
        return ImportFinding(module=module, path=path, line=line, note=doubt)
    provider = table.module_of(module)
    return ImportFinding(
        module=module,
        path=path,
        line=line,
        suggestion=f"{module}@latest",
        package=provider,
        manifest=manifest,
        declaration=f"require {provider} latest",
    )
