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
OVERRIDES_DETAIL = "overrides are not applied; state the version that you want as a requirement"
UV = ("tool", "uv")
REDIRECTING = (
    "index", "index-url", "extra-index-url", "find-links", "no-index", "sources", "index-strategy", "default-index",
)  # fmt: skip
OVERRIDES = "override-dependencies"
# Arrays of tables with a `url`, in which other tools list their registries.
SOURCES = (("tool", "poetry", "source"), ("tool", "pdm", "source"), ("tool", "hatch", "publish"))
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
    return [*_uv_settings(toml, UV, request), *_source_tables(toml, request)]


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
    for key in (*REDIRECTING, OVERRIDES):
        value = settings.get(key)
        if not value or all(request.is_registry(url) for url in _urls(value)):
            continue
        detail = OVERRIDES_DETAIL if key == OVERRIDES else DETAIL
        yield setting_ignored(toml.path, toml.line(*table, key), ".".join((*table, key)), detail)


def _source_tables(toml: TomlFile, request: Request) -> Iterator[Notice]:
    for keys in SOURCES:
        urls = _urls(toml.get(*keys) or "")
        if not all(request.is_registry(url) for url in urls):
            yield setting_ignored(toml.path, toml.line(*keys), ".".join(keys))


def _urls(value: object) -> list[str]:
    """The addresses in a setting: a string, or a list of strings or of tables with `url`. Others count as unknown."""
    if isinstance(value, str):
        return [value] if value else []
    if not isinstance(value, list):
        return [""]
    return [str(item.get("url", "")) if isinstance(item, dict) else str(item) for item in value]
