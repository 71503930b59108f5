"""Which registry hosts the doors may contact: read once, from one file, before anything is served."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

DEFAULT_FILE = Path(__file__).with_name("registries.toml")

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PUBLIC_ORIGIN = re.compile(rf"https://(?P<host>(?:{_LABEL}\.)+[a-z][a-z0-9-]*[a-z0-9])")
# Loopback can only be this machine's own mirror or a test's; no sandbox reaches it through a name.
_LOOPBACK_ORIGIN = re.compile(r"http://(?P<host>127\.0\.0\.1):[1-9][0-9]{0,4}")


class InvalidRegistries(Exception):
    """The registries file cannot be used."""

    def __init__(self, *, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Scheme, host and port of a registry, as `https://host`."""

    url: str
    host: str


@dataclass(frozen=True, kw_only=True)
class PypiRegistry:
    """The two hosts of PyPI: the one with the index, the one with the files."""

    index: Origin
    files: Origin


@dataclass(frozen=True, kw_only=True)
class Registries:
    """All registries that have a door."""

    pypi: PypiRegistry


def load_registries(path: Path = DEFAULT_FILE) -> Registries:
    """Read and check a registries file.

    Raises:
        InvalidRegistries: the file is missing, is no TOML, lacks a key, has an unknown one, or an origin is malformed.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidRegistries(path=path, problem=f"cannot be read as TOML: {error}") from error
    _check_keys(path, "the file", document, {"pypi"})
    table = document["pypi"]
    if not isinstance(table, dict):
        raise InvalidRegistries(path=path, problem="pypi must be a table")
    _check_keys(path, "[pypi]", table, {"index", "files"})
    return Registries(
        pypi=PypiRegistry(
            index=_origin(path, "pypi.index", table["index"]), files=_origin(path, "pypi.files", table["files"])
        )
    )


def _check_keys(path: Path, where: str, table: dict[str, object], expected: set[str]) -> None:
    if set(table) != expected:
        raise InvalidRegistries(path=path, problem=f"{where} must have exactly the keys {', '.join(sorted(expected))}")


def _origin(path: Path, key: str, text: object) -> Origin:
    match = None
    if isinstance(text, str):
        match = _PUBLIC_ORIGIN.fullmatch(text) or _LOOPBACK_ORIGIN.fullmatch(text)
    if match is None:
        raise InvalidRegistries(path=path, problem=f"{key} must look like https://host, without port or path")
    return Origin(url=match.group(), host=match["host"])
