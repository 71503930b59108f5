"""The block in a program that states its dependencies (PEP 723)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.model import Notice, NoticeKind
from services.resolver.python.manifests.project import Project, check_python
from services.resolver.python.manifests.pyproject import declared_list
from services.resolver.python.manifests.settings import toml_settings
from services.resolver.python.manifests.toml_file import TomlFile, parse_toml
from services.resolver.python.source import read_source

if TYPE_CHECKING:
    from services.resolver.python.manifests.request import Request

OPENING = re.compile(r"# /// ([a-zA-Z0-9-]+)")
CLOSING = "# ///"
SCRIPT = "script"
MAX_BLOCK_LINES = 25_000


def find_block(path: str, raw: bytes) -> tuple[str, int, Notice | None]:
    """The block's text as TOML and the number of lines before it; empty if there is none.

    A block that is never closed is none, and a notice says so. Raises ManifestError for a second block.
    """
    if b"# /// " not in raw:
        return "", 0, None
    lines = read_source(raw).content.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
    found: tuple[str, int] | None = None
    unclosed: Notice | None = None
    number = 0
    while number < len(lines):
        match = OPENING.fullmatch(lines[number].rstrip())
        end = _end(lines, number + 1) if match else 0
        if match and match[1] == SCRIPT and not end:
            detail = "the block of dependencies is never closed by a line '# ///', so it does not count"
            unclosed = Notice(kind=NoticeKind.MANIFEST_IGNORED, path=path, line=number + 1, subject=path, detail=detail)
        elif match and match[1] == SCRIPT:
            if found is not None:
                raise ManifestError(path=path, line=number + 1, reason="a second script block; keep one")
            block = [line[2:] if line.startswith("# ") else line[1:] for line in lines[number + 1 : end]]
            found = "\n".join(block), number + 1
        number = max(end, number) + 1
    return (*(found or ("", 0)), unclosed)


def read_block(path: str, block: str, offset: int, request: Request) -> Project | None:
    """What the block declares, or None if it says nothing about dependencies; raises ManifestError."""
    toml = TomlFile(path=path, text=block, data=parse_toml(path, block, offset), offset=offset)
    check_python(path, toml.line("requires-python"), toml.get("requires-python"), request)
    if toml.get("dependencies") is None:
        return None
    return Project(
        path=path,
        requirements=tuple(declared_list(toml, "dependencies")),
        notices=tuple(toml_settings(toml, request)),
        files=(path,),
    )


def _end(lines: list[str], start: int) -> int:
    """The index of the line that closes a block: the last `# ///` before the comment ends. 0 if there is none."""
    end = 0
    for number in range(start, min(len(lines), start + MAX_BLOCK_LINES)):
        line = lines[number].rstrip()
        if line == CLOSING:
            end = number
        elif (line != "#" and not line.startswith("# ")) or OPENING.fullmatch(line):
            break
    return end
