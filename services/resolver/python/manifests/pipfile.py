"""`Pipfile`, as pipenv documents it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from services.resolver.python.environment import UnreadableMarkerError, parse_marker
from services.resolver.python.manifests.project import Project
from services.resolver.python.manifests.requirements_file import NO_URL, Declared, parse_requirement, try_marker
from services.resolver.python.manifests.settings import PRERELEASE_DETAIL, setting_ignored
from services.resolver.python.manifests.toml_file import MAX_ENTRIES, TomlFile, read_toml

if TYPE_CHECKING:
    from packaging.markers import Marker

    from services.resolver.model import Notice
    from services.resolver.python.manifests.project import Choice
    from services.resolver.python.manifests.request import Request

PACKAGES = "packages"
DEVELOPMENT = "dev-packages"
NOT_PACKAGES = frozenset({"source", "requires", "scripts", "pipenv", "pipfile", PACKAGES})
ELSEWHERE = ("git", "path", "file", "hg", "svn", "editable")
MARKER_KEYS = (
    "os_name",
    "sys_platform",
    "platform_machine",
    "platform_system",
    "python_version",
    "python_full_version",
)
# The name that pipenv gives to the registry itself.
DEFAULT_SOURCE = "pypi"


def read_pipfile(path: str, request: Request) -> Project:
    """Read the manifest: each section beside `[packages]` is a group. Raises ManifestError."""
    toml = read_toml(path, request.files[path])
    groups: dict[str, Choice] = {}
    for name, section in toml.data.items():
        if name not in NOT_PACKAGES and isinstance(section, dict):
            groups[str(canonicalize_name(name))] = partial(_section, toml, name)
    if DEVELOPMENT in groups:
        groups.setdefault("dev", groups[DEVELOPMENT])
    return Project(
        path=path,
        requirements=tuple(_section(toml, PACKAGES)),
        groups=groups,
        notices=tuple(_ignored(toml, request)),
        files=(path,),
    )


def pipfile_specifier(version: str) -> str:
    """A version in a Pipfile as a specifier: `*` is any."""
    return "" if version.strip() == "*" else version.strip()


def _section(toml: TomlFile, section: str) -> list[Declared]:
    table = toml.table(section)
    if len(table) > MAX_ENTRIES:
        raise toml.error(f"{section} has more than {MAX_ENTRIES} entries", section)
    return [_requirement(toml, section, name, value) for name, value in table.items()]


def _requirement(toml: TomlFile, section: str, name: str, value: Any) -> Declared:
    line = toml.line(section, name)
    fields = {"version": value} if isinstance(value, str) else value
    if not isinstance(fields, dict):
        raise toml.error(f"{name[:80]} must be a version or a table", section, name)
    if any(key in fields for key in ELSEWHERE):
        raise toml.error(f"{name[:80]}: {NO_URL}", section, name)
    extras, version = fields.get("extras", []), fields.get("version", "*")
    if not isinstance(extras, list) or not isinstance(version, str):
        raise toml.error(f"{name[:80]}: version must be a string and extras a list", section, name)
    brackets = f"[{','.join(str(extra) for extra in extras)}]" if extras else ""
    parsed = parse_requirement(toml.path, line, f"{name}{brackets}{pipfile_specifier(version)}")
    marker = _marker(toml, section, name, fields)
    if marker is not None:
        try_marker(toml.path, line, marker)
        parsed.marker = marker
    return Declared(specifier=parsed, hashes=(), path=toml.path, line=line)


def _marker(toml: TomlFile, section: str, name: str, fields: dict[str, Any]) -> Marker | None:
    """The marker of an entry: `markers`, and keys such as sys_platform that hold a comparison."""
    parts = [f"({fields['markers']})"] if fields.get("markers") else []
    parts += [f"{key} {fields[key]}" for key in MARKER_KEYS if fields.get(key)]
    try:
        return parse_marker(" and ".join(parts)) if parts else None
    except UnreadableMarkerError as error:
        raise toml.error(f"{name[:80]}: not a marker: {' and '.join(parts)[:80]!r}", section, name) from error


def _ignored(toml: TomlFile, request: Request) -> list[Notice]:
    found = []
    wanted = toml.table("requires").get("python_version") or toml.table("requires").get("python_full_version")
    if isinstance(wanted, str) and not f"{request.python}.".startswith(f"{wanted}."):
        detail = f"it asks for Python {wanted[:40]}; the sandbox has {request.python}"
        found.append(setting_ignored(toml.path, toml.line("requires"), "requires.python_version", detail))
    if toml.table("pipenv").get("allow_prereleases"):
        line = toml.line("pipenv", "allow_prereleases")
        found.append(setting_ignored(toml.path, line, "pipenv.allow_prereleases", PRERELEASE_DETAIL))
    sources = toml.get("source")
    for source in sources if isinstance(sources, list) else []:
        url = str(source.get("url", "")) if isinstance(source, dict) else ""
        is_default = isinstance(source, dict) and source.get("name") == DEFAULT_SOURCE and not request.registries
        if not is_default and not request.is_registry(url):
            found.append(setting_ignored(toml.path, toml.line_of_string(url, toml.line("source")), "source"))
    return found
