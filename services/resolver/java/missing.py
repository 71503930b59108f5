"""Which package a program lacked, from the words of javac or of the JVM at the end of its stderr."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from services.resolver.java.needs import finding_of
from services.resolver.java.table import import_table
from services.resolver.paths import WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.resolver.model import ImportFinding

MAX_OUTPUT = 64 * 1024
MAX_FINDINGS = 50
JAVAC = re.compile(
    r"^(?P<path>[^\n:]{1,1000}\.java):(?P<line>\d{1,9}): error: package (?P<package>[\w.]{1,500}) does not exist\n"
    r"(?P<source>[^\n]{0,2000})",
    re.MULTILINE,
)
IMPORT = re.compile(r"\s*import\s+(?P<static>static\s+)?(?P<name>[\w.]{1,500})\s*(?P<any>\.\*)?\s*;")
# The last line of an account that nobody caught, or one that says what lay below it.
CLASS = re.compile(
    r"^(?:Exception in thread \"[^\"\n]{0,200}\" |Caused by: |Error: )?(?:java\.lang\.)?"
    r"(?:NoClassDefFoundError|ClassNotFoundException): (?P<name>[\w./$]{1,500})\s*$",
    re.MULTILINE,
)
DRIVER = re.compile(r"java\.sql\.SQLException: No suitable driver found for (?P<url>jdbc:[a-z0-9]{1,30}:)")
FRAME = re.compile(r"^\s+at [\w.$/<>]{1,500}\((?P<file>[\w$]{1,200}\.java):(?P<line>\d{1,9})\)", re.MULTILINE)


def explain_run(output: bytes, manifests: Sequence[str]) -> list[ImportFinding]:
    """The packages that were not there, if that is how the program ended."""
    text = output[-MAX_OUTPUT:].decode("utf-8", "replace").replace("\r\n", "\n")
    manifest = next((name for name in manifests if name.endswith((".xml", ".gradle", ".kts", ".java"))), "")
    found: dict[str, ImportFinding] = {}
    for match in JAVAC.finditer(text):
        # A class whose import failed looks like a package where something is taken from it.
        if match["package"][0].isupper():
            continue
        name = _imported(match["source"], match["package"])
        path = match["path"].removeprefix(f"{WORKSPACE}/")
        found.setdefault(name, _finding(name, path, int(match["line"]), manifest))
    for pattern in () if found else (CLASS, DRIVER):
        for match in pattern.finditer(text):
            name = match[1].replace("/", ".")
            frame = FRAME.search(text, match.end())
            found.setdefault(name, _finding(name, "", int(frame["line"]) if frame else 0, manifest))
    return list(found.values())[:MAX_FINDINGS]


def _imported(source: str, package: str) -> str:
    match = IMPORT.match(source)
    if match is None:
        return f"{package}.*"
    if match["static"] and not match["any"]:
        return match["name"].rpartition(".")[0]
    return match["name"] + (".*" if match["any"] else "")


def _finding(name: str, path: str, line: int, manifest: str) -> ImportFinding:
    table = import_table()
    known = table.find(name)
    if known is None:
        return finding_of(name, path, line, "", coordinate=None, note=table.note(name))
    return finding_of(name, path, line, manifest, coordinate=known.coordinate)
