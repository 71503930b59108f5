"""Go's module paths, import paths, versions, hashes and purls."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

ECOSYSTEM = "go"
MAX_PATH = 400
_ELEMENT = r"[A-Za-z0-9_~-][A-Za-z0-9._~+-]{0,150}"
PATH = re.compile(rf"{_ELEMENT}(?:/{_ELEMENT}){{0,30}}")
VERSION = re.compile(r"v(?:0|[1-9]\d{0,17})(?:\.(?:0|[1-9]\d{0,17})){2}(?:-[0-9A-Za-z.-]{1,120})?(?:\+incompatible)?")
# What the go command finds a version by: latest, a branch, a prefix, a comparison.
QUERY = re.compile(r"[<>]?=?[0-9A-Za-z_][0-9A-Za-z._/+-]{0,150}")
HASH = re.compile(r"h1:[A-Za-z0-9+/]{43}=")
# Hosts at which a module's path has a known number of parts before its major version.
HOST_DEPTHS = {
    "github.com": 3, "gitlab.com": 3, "bitbucket.org": 3, "codeberg.org": 3, "gitea.com": 3, "golang.org": 3,
    "gonum.org": 3, "gorm.io": 2, "gopkg.in": 2, "go.uber.org": 2, "k8s.io": 2, "modernc.org": 2, "cloud.google.com": 2,
}  # fmt: skip
MAJOR = re.compile(r"v[2-9]|v[1-9]\d{1,3}")


def is_path(text: str) -> bool:
    """Whether a text can be the path of a module or a package."""
    return len(text) <= MAX_PATH and PATH.fullmatch(text) is not None and not _has_bad_dots(text)


def is_remote(path: str) -> bool:
    """Whether a path names a host, as the path of every published module does."""
    host = path.partition("/")[0]
    return "." in host and not host.startswith(("-", ".")) and host == host.lower()


def module_guess(import_path: str) -> str:
    """The module that an import path most likely belongs to, by the habits of its host."""
    parts = import_path.split("/")
    depth = HOST_DEPTHS.get(parts[0], len(parts))
    if parts[0] == "gopkg.in" and len(parts) > 1 and ".v" not in parts[1]:
        depth = 3
    if len(parts) > depth and MAJOR.fullmatch(parts[depth]):
        depth += 1
    return "/".join(parts[:depth])


def covers(module: str, import_path: str) -> bool:
    """Whether a package with this path can lie in a module."""
    return import_path == module or import_path.startswith(f"{module}/")


def provider(import_path: str, modules: Container[str]) -> str:
    """Which of some modules a package can lie in, the one with the longest path; empty if in none."""
    while import_path and import_path not in modules:
        import_path = import_path.rpartition("/")[0]
    return import_path


def above(import_paths: Iterable[str]) -> frozenset[str]:
    """All modules that any of some packages could lie in."""
    found: set[str] = set()
    for path in import_paths:
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]  # noqa: PLW2901 -- it is walked up
    return frozenset(found)


def purl_of(module: str, version: str) -> str:
    """A module's purl; its path keeps its case, as Go tells paths apart by it."""
    return f"pkg:golang/{quote(module, safe='/~')}@{quote(version, safe='')}"


def language_of(version: str) -> tuple[int, ...]:
    """A Go version, as in `go 1.22.1` or `1.23rc1`, as numbers; empty if it is none."""
    found = re.fullmatch(r"(\d{1,4})(?:\.(\d{1,4}))?(?:\.(\d{1,4}))?(?:(?:rc|beta)\d{1,4})?", version)
    return tuple(int(part) for part in found.groups() if part) if found else ()


def _has_bad_dots(path: str) -> bool:
    return any(part.endswith(".") for part in path.split("/"))
