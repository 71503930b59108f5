"""Which import ended a program, from the end of its stderr."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from services.resolver.node.detect import OWN_FILE
from services.resolver.node.needs import finding_of
from services.resolver.node.package import MANIFEST
from services.resolver.node.specifier import SpecifierKind, read_specifier
from services.resolver.node.table import package_table
from services.resolver.paths import WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.resolver.model import ImportFinding

MAX_OUTPUT = 64 * 1024
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Node ends the account of an error that nobody caught with its own version.
LAST_LINE = re.compile(r"^Node\.js v\d+\.\d+\.\d+[ \t]*+$", re.MULTILINE)
# What npm says of a script that failed, where it is not silent.
NPM_LINES = re.compile(r"^npm (?:error|ERR!)[^\n]*$", re.MULTILINE)
# The first line of an error; the one before the last line is the one that ended the program.
ERROR = re.compile(r"^(?:Uncaught )?(?:\w*Error)(?: \[\w+\])?: (?P<message>[^\n]*)$", re.MULTILINE)
MISSING = re.compile(
    r"Cannot find (?:package|module) '(?P<module>[^'\n]{1,500})'(?: imported from (?P<path>[^\n]{1,4096}))?"
)
# Nothing that repeats may cross lines: at every line of a flood of empty ones it would begin anew.
REQUIRER = re.compile(r"^(?:- |[ \t]*+requireStack: \[[ \t]*+\n?[ \t]*+')(?P<path>/[^'\n]{1,4096})", re.MULTILINE)
FRAME = re.compile(
    r"^[ \t]++at (?:[^\n(]{0,200}\()?(?:file://)?(?P<path>/sandbox/[^\n:)]{1,4096}):(?P<line>\d{1,9})", re.MULTILINE
)
PLACE = re.compile(r"^(?:file://)?(?P<path>/sandbox/[^\n:]{1,4096}):(?P<line>\d{1,9})$", re.MULTILINE)


def explain_run(output: bytes, manifests: Sequence[str]) -> list[ImportFinding]:
    """The import that was not found, if that is how the program ended."""
    text = COLOUR.sub("", output[-MAX_OUTPUT:].decode("utf-8", "replace")).replace("\r\n", "\n")
    ends = list(LAST_LINE.finditer(text))
    if not ends or NPM_LINES.sub("", text[ends[-1].end() :]).strip():
        return []
    account = text[ends[-2].end() if len(ends) > 1 else 0 : ends[-1].start()]
    errors = list(ERROR.finditer(account))
    missing = MISSING.match(errors[-1]["message"]) if errors else None
    if missing is None:
        return []
    path, line = _place(account, errors[-1].start(), missing["path"])
    return [_finding(missing["module"], path, line, manifests)]


def _place(account: str, start: int, importer: str | None) -> tuple[str, int]:
    """The file that imports, relative to the workspace, and the line where it is told."""
    rest = account[start:]
    if importer is None:
        requirer = REQUIRER.search(rest)
        importer = requirer["path"] if requirer else None
    if importer is None:
        frame = FRAME.search(rest)
        return (_own(frame["path"]), int(frame["line"])) if frame else ("", 0)
    importer = importer.strip().removeprefix("file://")
    told = [*FRAME.finditer(rest), *PLACE.finditer(account)]
    line = next((int(match["line"]) for match in told if match["path"] == importer), 0)
    return _own(importer), line


def _own(path: str) -> str:
    return path.removeprefix(f"{WORKSPACE}/")


def _finding(module: str, path: str, line: int, manifests: Sequence[str]) -> ImportFinding:
    specifier = read_specifier(module.removeprefix("file://"))
    if specifier.kind is SpecifierKind.FILE:
        return finding_of(_own(module.removeprefix("file://")), path, line, "", package="", note=OWN_FILE)
    if specifier.kind is not SpecifierKind.PACKAGE:
        return finding_of(module, path, line, "", package="", note=specifier.note)
    table = package_table()
    package = specifier.name if table.knows(specifier.name) else ""
    manifest = next((name for name in manifests if name.rpartition("/")[2] == MANIFEST), MANIFEST)
    note = "" if package else table.note(specifier.name)
    return finding_of(module, path, line, manifest, package=package, note=note)
