"""What the text of an import names: a file, a module of Node, a package, or something that Node does not have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from services.resolver.node.table import builtin_modules

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
# What npm lets a package be called; capitals are in names that are older than the rule.
PACKAGE_NAME = re.compile(r"(?:@[A-Za-z0-9~_-][A-Za-z0-9._~-]*/)?[A-Za-z0-9~_-][A-Za-z0-9._~!()*'-]*")
MAX_NAME_LENGTH = 214


class SpecifierKind(Enum):
    """What a specifier names."""

    FILE = auto()
    BUILTIN = auto()
    PACKAGE = auto()
    # `#name`, which the nearest package.json maps.
    MAPPED = auto()
    # A name by another runtime's rules, or of a module that Node does not have.
    FOREIGN = auto()
    INLINE = auto()


@dataclass(frozen=True, kw_only=True, slots=True)
class Specifier:
    """A specifier taken apart.

    `name` is the package's name or the file's path; `subpath` what follows a package's name, without the slash. `note`
    says for FOREIGN what the author may have meant.
    """

    kind: SpecifierKind
    name: str
    subpath: str = ""
    note: str = ""


FOREIGN_NOTES = {
    "http": "Node imports nothing by URL; install the package and import it by its name",
    "https": "Node imports nothing by URL; install the package and import it by its name",
    "bun": "a module of Bun, which Node does not have",
    "jsr": "a name of JSR, which Node does not read; import the package by its name in npm",
    "npm": "Deno's notation; in Node write {name!r}",
    "deno": "a module of Deno, which Node does not have",
    "virtual": "a module that only a bundler makes",
}


def read_specifier(text: str) -> Specifier:
    """Take a specifier apart; never fails."""
    if text.startswith(("./", "../", "/")) or text in {".", ".."}:
        return Specifier(kind=SpecifierKind.FILE, name=text)
    if text.startswith("#"):
        return Specifier(kind=SpecifierKind.MAPPED, name=text)
    scheme = SCHEME.match(text)
    if scheme:
        return _with_scheme(scheme[1].lower(), text[scheme.end() :], text)
    if text in builtin_modules():
        return Specifier(kind=SpecifierKind.BUILTIN, name=text)
    return _package(text)


def package_name(text: str) -> str:
    """The package that a bare specifier names, or the empty string."""
    name, _ = split_package(text)
    return name


def split_package(text: str) -> tuple[str, str]:
    """The package of a bare specifier and the path in it; both empty if npm allows no such name."""
    parts = text.split("/", 2 if text.startswith("@") else 1)
    length = 2 if text.startswith("@") else 1
    name = "/".join(parts[:length])
    if len(name) > MAX_NAME_LENGTH or not PACKAGE_NAME.fullmatch(name):
        return "", ""
    return name, parts[length] if len(parts) > length else ""


def _with_scheme(scheme: str, rest: str, text: str) -> Specifier:
    if scheme == "node":
        known = rest in builtin_modules() or text in builtin_modules()
        note = "" if known else "no module of this Node"
        return Specifier(kind=SpecifierKind.BUILTIN if known else SpecifierKind.FOREIGN, name=text, note=note)
    if scheme == "file":
        return Specifier(kind=SpecifierKind.FILE, name=rest.removeprefix("//"))
    if scheme == "data":
        return Specifier(kind=SpecifierKind.INLINE, name=text)
    meant = package_name(re.sub(r"(?<=.)@[^/]*", "", rest.lstrip("/"), count=1)) if scheme == "npm" else ""
    note = FOREIGN_NOTES.get(scheme, "Node has no such kind of import").format(name=meant)
    return Specifier(kind=SpecifierKind.FOREIGN, name=text, note=note)


def _package(text: str) -> Specifier:
    name, subpath = split_package(text)
    if name:
        return Specifier(kind=SpecifierKind.PACKAGE, name=name, subpath=subpath)
    note = "no name that npm allows; if it is an alias of your own, say so in `paths` of tsconfig.json"
    return Specifier(kind=SpecifierKind.FOREIGN, name=text, note=note)
