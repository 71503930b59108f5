"""Settings that would send an installer elsewhere. None is followed; each is named, with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.model import Notice, NoticeKind
from services.resolver.python.manifests.text import decode_manifest
from services.resolver.python.manifests.toml_file import TomlFile, read_toml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from services.resolver.python.manifests.request import Request

DETAIL = "packages come from the sandbox's own registry, whatever this says"
NOT_APPLIED_DETAIL = "it is not applied; state the versions that you want as requirements"
PRERELEASE_DETAIL = "pre-releases are installed only where a requirement names one"
UV = ("tool", "uv")
REDIRECTING = (
    "index", "index-url", "extra-index-url", "find-links", "no-index", "sources", "index-strategy", "default-index",
)  # fmt: skip
NOT_APPLIED = ("override-dependencies", "exclude-newer", "prerelease", "resolution", "no-binary", "no-binary-package")
# Arrays of tables with a `url`, in which other tools list their registries.
SOURCES = (("tool", "poetry", "source"), ("tool", "pdm", "source"), ("tool", "hatch", "publish"))
POETRY = ("tool", "poetry", "dependencies")
UV_FILE = "uv.toml"
# Files in `key = value` form, and the keys that would redirect.
KEYS_OF_FILE = {
    "pip.conf": ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy", "index"),
    "pip.ini": ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy", "index"),
    ".pypirc": ("repository", "index-servers"),
}
SETTING_FILES = frozenset((UV_FILE, *KEYS_OF_FILE))


def toml_settings(toml: TomlFile, request: Request) -> list[Notice]:
    """What a pyproject.toml or a script's block sets and nobody follows."""
    return [*_uv_settings(toml, UV, request), *_source_tables(toml, request), *_prereleases(toml)]


def setting_files(directories: Sequence[str], request: Request) -> list[Notice]:
    """What the settings files in these directories set and nobody follows."""
    found: list[Notice] = []
    for directory in directories:
        prefix = f"{directory}/" if directory else ""
        for name in sorted(SETTING_FILES):
            path = prefix + name
            if path in request.files:
                found += _of_file(path, name, request)
    return found


def setting_ignored(path: str, line: int, subject: str, detail: str = DETAIL) -> Notice:
    """A notice of one setting."""
    return Notice(kind=NoticeKind.SETTING_IGNORED, path=path, line=line, subject=subject, detail=detail)


def _of_file(path: str, name: str, request: Request) -> Iterator[Notice]:
    """A settings file that cannot be read redirects nothing, and is named all the same."""
    try:
        if name == UV_FILE:
            yield from _uv_settings(read_toml(path, request.files[path]), (), request)
            return
        lines = decode_manifest(path, request.files[path]).splitlines()
    except ManifestError as error:
        yield setting_ignored(path, error.line, path)
        return
    for number, line in enumerate(lines, start=1):
        key, _, value = line.replace(":", "=", 1).partition("=")
        if key.strip().replace("_", "-").lower() in KEYS_OF_FILE[name] and not request.is_registry(value.strip()):
            yield setting_ignored(path, number, f"{path}: {key.strip()}")


def _uv_settings(toml: TomlFile, table: tuple[str, ...], request: Request) -> Iterator[Notice]:
    settings = toml.table(*table)
    for key in (*REDIRECTING, *NOT_APPLIED):
        value = settings.get(key)
        if not value or (key in REDIRECTING and all(request.is_registry(url) for url in _urls(value))):
            continue
        detail = DETAIL if key in REDIRECTING else NOT_APPLIED_DETAIL
        yield setting_ignored(toml.path, toml.line(*table, key), ".".join((*table, key)), detail)


def _source_tables(toml: TomlFile, request: Request) -> Iterator[Notice]:
    for keys in SOURCES:
        urls = _urls(toml.get(*keys) or "")
        if not all(request.is_registry(url) for url in urls):
            yield setting_ignored(toml.path, toml.line(*keys), ".".join(keys))


def _prereleases(toml: TomlFile) -> Iterator[Notice]:
    """Poetry's wish for pre-releases of a package."""
    for name, fields in toml.table(*POETRY).items():
        if isinstance(fields, dict) and fields.get("allow-prereleases"):
            yield setting_ignored(toml.path, toml.line(*POETRY, name), f"{name}: allow-prereleases", PRERELEASE_DETAIL)


def _urls(value: object) -> list[str]:
    """The addresses in a setting: a string, or a list of strings or of tables with `url`. Others count as unknown."""
    if isinstance(value, str):
        return [value] if value else []
    if not isinstance(value, list):
        return [""]
    return [str(item.get("url", "")) if isinstance(item, dict) else str(item) for item in value]
