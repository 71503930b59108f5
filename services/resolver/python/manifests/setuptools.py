"""`setup.cfg` and `setup.py`, read without running them."""

from __future__ import annotations

import configparser
import posixpath
from functools import partial
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from services.resolver.errors import ManifestError
from services.resolver.python.manifests.project import Choice, Project, check_python
from services.resolver.python.manifests.requirements_file import Declared, RequirementsReader, parse_requirement
from services.resolver.python.manifests.setup_program import SetupCall, read_setup_call
from services.resolver.python.manifests.text import decode_manifest
from services.resolver.python.manifests.toml_file import MAX_ENTRIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from services.resolver.python.manifests.request import Request

FILE_DIRECTIVE = "file:"
EXTRAS_SECTION = "options.extras_require"


def read_setup_cfg(path: str, request: Request) -> Project | None:
    """What `[options]` declares, or None if it says nothing about dependencies; raises ManifestError."""
    text = decode_manifest(path, request.files[path])
    config = _parse(path, text)
    if not config.has_option("options", "install_requires") and not config.has_section(EXTRAS_SECTION):
        return None
    lines = text.split("\n")
    wanted = config.get("options", "python_requires", fallback=None)
    check_python(path, _line(lines, "python_requires"), wanted, request, "python_requires")
    reader = RequirementsReader(request)
    name = config.get("metadata", "name", fallback="")
    extras: dict[str, Choice] = {}
    for extra in config.options(EXTRAS_SECTION) if config.has_section(EXTRAS_SECTION) else ():
        value = config.get(EXTRAS_SECTION, extra)
        extras[str(canonicalize_name(extra))] = partial(_listed, path, lines, _line(lines, extra), value, reader)
    requirements = _listed(
        path,
        lines,
        _line(lines, "install_requires"),
        config.get("options", "install_requires", fallback=""),
        reader,
    )
    return Project(
        path=path,
        name=str(canonicalize_name(name)),
        requirements=tuple(requirements),
        extras=extras,
        notices=tuple(reader.found.notices),
        files=(path, *reader.found.paths),
    )


def read_setup_py(path: str, request: Request) -> Project | None:
    """What a call of setup() states literally, or None if it says nothing about dependencies.

    What it computes makes the project dynamic: it would have to run. Raises ManifestError.
    """
    call = read_setup_call(request.files[path])
    if call is None or not (
        call.spreads or {"install_requires", "extras_require"} & (call.computed | set(call.literals))
    ):
        return None
    wanted, line = call.value("python_requires")
    if isinstance(wanted, str):
        check_python(path, line, wanted, request, "python_requires")
    requires, line = call.value("install_requires")
    requirements = [] if requires is None else _literal(path, line, requires)
    extras, extras_line = call.value("extras_require")
    name, _ = call.value("name")
    return Project(
        path=path,
        name=str(canonicalize_name(name)) if isinstance(name, str) else "",
        requirements=tuple(requirements),
        extras=_literal_extras(path, extras_line, extras),
        files=(path,),
        dynamic=_is_dynamic(call),
    )


def _is_dynamic(call: SetupCall) -> bool:
    """Whether something that it says about dependencies is computed."""
    return "install_requires" in call.computed or (call.spreads and "install_requires" not in call.literals)


def _literal(path: str, line: int, value: Any) -> list[Declared]:
    """Requirements in a literal: a list of strings, or one string with one in a line."""
    items = value.splitlines() if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise ManifestError(path=path, line=line, reason="the requirements must be a list of strings")
    if len(items) > MAX_ENTRIES:
        raise ManifestError(path=path, line=line, reason=f"more than {MAX_ENTRIES} requirements")
    return [_declared(path, line, item) for item in items if item.strip()]


def _literal_extras(path: str, line: int, value: Any) -> Mapping[str, Choice]:
    if not isinstance(value, dict):
        return {}
    return {
        str(canonicalize_name(str(name).partition(":")[0])): partial(_literal, path, line, items)
        for name, items in value.items()
    }


def _listed(path: str, lines: list[str], start: int, value: str, reader: RequirementsReader) -> list[Declared]:
    """The requirements in a setting: one in a line, or a `file:` directive with a list of files."""
    text = value.strip()
    if text.startswith(FILE_DIRECTIVE):
        before = len(reader.found.requirements)
        for name in text.removeprefix(FILE_DIRECTIVE).split(","):
            reader.read_line(path, start, f"-r {posixpath.normpath(name.strip())}")
        return reader.found.requirements[before:]
    if text.count("\n") > MAX_ENTRIES:
        raise ManifestError(path=path, line=start, reason=f"more than {MAX_ENTRIES} requirements")
    found = []
    line = start
    for item in (part.strip() for part in _items(text)):
        line = _line(lines, item, line)
        found.append(_declared(path, line, item))
    return found


def _items(text: str) -> Iterable[str]:
    """The lines of a setting that are no comments."""
    return (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def _declared(path: str, line: int, text: str) -> Declared:
    return Declared(specifier=parse_requirement(path, line, text.strip()), hashes=(), path=path, line=line)


def _parse(path: str, text: str) -> configparser.RawConfigParser:
    config = configparser.RawConfigParser(strict=False)
    try:
        config.read_string(text, path)
    except configparser.MissingSectionHeaderError as error:
        raise ManifestError(path=path, line=error.lineno, reason="is not a setup.cfg: no [section] yet") from error
    except configparser.ParsingError as error:
        line = error.errors[0][0] if error.errors else 0
        raise ManifestError(path=path, line=line, reason="is not a setup.cfg: not a key = value line") from error
    except configparser.Error as error:
        raise ManifestError(path=path, reason=f"is not a setup.cfg: {str(error).splitlines()[0][:200]}") from error
    return config


def _line(lines: list[str], needle: str, start: int = 1) -> int:
    """The first line from `start` on that holds the text, else `start`."""
    return next((number for number in range(start, len(lines) + 1) if needle in lines[number - 1]), start)
