"""Which registry hosts the doors may contact: read once, from one file, before anything is served."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_FILE = Path(__file__).with_name("registries.toml")

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PUBLIC_ORIGIN = re.compile(rf"https://(?P<host>(?:{_LABEL}\.)+[a-z][a-z0-9-]*[a-z0-9])")
# Loopback can only be this machine's own mirror or a test's; no sandbox reaches it through a name.
_LOOPBACK_ORIGIN = re.compile(r"http://(?P<host>127\.0\.0\.1):[1-9][0-9]{0,4}")
_PREFIX = re.compile(
    rf"(?:{_PUBLIC_ORIGIN.pattern}|{_LOOPBACK_ORIGIN.pattern.replace('<host>', '<loopback>')})/(?:[A-Za-z0-9_-]+/)*"
)
_URL = re.compile(
    r"(?P<origin>https?://[a-z0-9.-]+(?::[0-9]{1,5})?)"
    r"(?P<path>/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?"
)
_MAX_URL = 8192
# What a server may take for a dot, a slash or an escape, and so for a way out of a path.
_DISGUISED = re.compile(r"%(?:2[ef5]|5c|00)", re.IGNORECASE)


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
class Registry:
    """One ecosystem's hosts by role, and where its redirects may lead (each `https://host/` and a path's start)."""

    origins: Mapping[str, Origin]
    redirects: tuple[str, ...]

    def url(self, role: str) -> str:
        """The origin of a role, as `https://host`."""
        return self.origins[role].url

    def owns(self, url: str) -> bool:
        """Whether `url` is plain (no user, no fragment, no dot segments) and lies at one of the origins."""
        match = _plain(url)
        return match is not None and match["origin"] in {origin.url for origin in self.origins.values()}

    def follows(self, url: str) -> bool:
        """Whether a redirect to `url` is followed: it stays at the origins, or begins as `redirects` allows."""
        if self.owns(url):
            return True
        match = _plain(url)
        return match is not None and not _DISGUISED.search(match["path"]) and url.startswith(self.redirects)


@dataclass(frozen=True, kw_only=True)
class Registries:
    """All registries that have a door."""

    pypi: Registry
    npm: Registry
    go: Registry
    maven: Registry

    @property
    def hosts(self) -> frozenset[str]:
        """Every host of every registry; those of redirects are not among them."""
        registries = (self.pypi, self.npm, self.go, self.maven)
        return frozenset(origin.host for registry in registries for origin in registry.origins.values())


_ROLES = {"pypi": {"index", "files"}, "npm": {"registry"}, "go": {"proxy", "sumdb"}, "maven": {"central"}}


def load_registries(path: Path = DEFAULT_FILE) -> Registries:
    """Read and check a registries file.

    Raises:
        InvalidRegistries: the file is missing, is no TOML, lacks a key, has an unknown one, or an origin is malformed.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidRegistries(path=path, problem=f"cannot be read as TOML: {error}") from error
    _check_keys(path, "the file", document, set(_ROLES))
    return Registries(**{name: _registry(path, name, document[name]) for name in _ROLES})


def _plain(url: str) -> re.Match[str] | None:
    """A URL of plain characters, without user, fragment or dot segments."""
    match = _URL.fullmatch(url) if len(url) <= _MAX_URL else None
    return None if match is None or {".", ".."}.intersection(match["path"].split("/")) else match


def _registry(path: Path, name: str, table: object) -> Registry:
    if not isinstance(table, dict):
        raise InvalidRegistries(path=path, problem=f"{name} must be a table")
    _check_keys(path, f"[{name}]", table, _ROLES[name] | {"redirects"})
    redirects = table["redirects"]
    if not isinstance(redirects, list):
        raise InvalidRegistries(path=path, problem=f"{name}.redirects must be a list")
    return Registry(
        origins={role: _origin(path, f"{name}.{role}", table[role]) for role in sorted(_ROLES[name])},
        redirects=tuple(_prefix(path, f"{name}.redirects", text) for text in redirects),
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


def _prefix(path: Path, key: str, text: object) -> str:
    if not isinstance(text, str) or not _PREFIX.fullmatch(text):
        raise InvalidRegistries(path=path, problem=f"{key} must hold such as https://host/start/of/path/")
    return text
