"""The plan of a program that is not in a sandbox yet, made by a child process whose time is bounded."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio

_SECONDS: Final = 60.0


class PlanError(Exception):
    """The program cannot be planned; in words for whoever asked."""


@dataclass(frozen=True, kw_only=True)
class Dependencies:
    """What a program needs, from where that is known, and how it would be launched.

    `source` is "lock", "manifest", "detected" or "none"; the imports of `undeclared` would be installed with
    `install_missing`, and for those of `unknown` no package is known.
    """

    ecosystem: str
    source: str
    requirements: list[str]
    undeclared: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    launch: list[str] = field(default_factory=list)


async def plan(files: dict[str, str]) -> Dependencies:
    """Plans the one program of some files; their names have no directories. PlanError."""
    with tempfile.TemporaryDirectory(prefix="qila-plan-") as directory:
        document = json.loads(await _planned(_written(Path(directory), files)))
    return Dependencies(
        ecosystem=document["ecosystem"],
        source=document["source"],
        requirements=[requirement["specifier"] for requirement in document["requirements"]],
        undeclared=[_place(found) for found in document["undeclared"]],
        unknown=[_place(found) for found in document["unknown"]],
        launch=document["launch"]["argv"],
    )


def _written(directory: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (directory / name).write_text(content)
    # A file alone is planned alone.
    return directory if len(files) > 1 else directory / next(iter(files))


async def _planned(target: Path) -> bytes:
    command = [sys.executable, "-m", "qila.cli", "plan", "--json", str(target)]
    child = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    try:
        with anyio.fail_after(_SECONDS):
            output, errors = await child.communicate()
    except TimeoutError:
        raise PlanError(f"the program could not be planned within {_SECONDS:.0f} seconds") from None
    finally:
        if child.returncode is None:
            child.kill()
            with anyio.CancelScope(shield=True):
                await child.wait()
    if child.returncode:
        words = errors.decode("utf-8", "replace").strip().removeprefix("Error: ")
        # Where the files lay for a moment says nothing to anybody.
        raise PlanError(words.replace(f"{target}/", "").replace(f"{target.parent}/", "") or "it could not be planned")
    return output


def _place(found: dict[str, Any]) -> str:
    return f"{found['path']}:{found['line']} imports {found['module']}"
