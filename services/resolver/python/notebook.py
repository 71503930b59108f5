"""Jupyter notebooks as Python source for the scan: code cells joined, and where in the file each line stands."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from services.resolver.errors import ManifestError

NOTEBOOK_SUFFIX = ".ipynb"
MAX_CELLS = 10_000
# A notebook that writes its text in another way than all tools do is not searched for ever.
MAX_MISSES = 100
# Cell magics whose body is Python all the same.
PYTHON_BODIES = ("%%time", "%%timeit", "%%capture", "%%prun", "%%python", "%%python3")
MAGIC = re.compile(r"(?P<indent>[ \t]*)(?P<magic>[%!?][^\n]*|[\w.]+\?{1,2}[ \t]*$)")
ASSIGNED = re.compile(r"(?P<before>[ \t]*[A-Za-z_]\w*[ \t]*=[ \t]*)[%!]")
STATEMENT_MAGIC = re.compile(r"%(?:time|timeit|prun)[ \t]+(?P<statement>[^-\s].*)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """A notebook's Python; `lines[n]` is the line of the notebook's file that line `n + 1` of `content` comes from."""

    content: bytes
    lines: tuple[int, ...]


def read_notebook(path: str, raw: bytes) -> Script:
    """The code cells of a notebook, nbformat 3 or 4; raises ManifestError if it is none of Python's."""
    document = _parse(path, raw)
    _check_language(path, document)
    sheets = document.get("worksheets", [document])
    cells = [cell for sheet in sheets if isinstance(sheet, dict) for cell in _cells(path, sheet)]
    if len(cells) > MAX_CELLS:
        raise ManifestError(path=path, reason=f"has more than {MAX_CELLS} cells; make the notebook smaller")
    places = _Places(raw.decode("utf-8", "replace"))
    script: list[str] = []
    lines: list[int] = []
    for cell in cells:
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            source = _source(cell).split("\n")
            lines += [places.line_of(line) for line in source]
            script += _python(source)
    return Script(content="\n".join(script).encode("utf-8", "replace"), lines=tuple(lines))


class _Places:
    """Finds the lines of cells in the notebook's own text, in order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._line = 1
        self._misses = 0

    def line_of(self, source: str) -> int:
        """The line of the file on which a line of a cell stands; the last one found if it is written otherwise."""
        if not source.strip() or self._misses > MAX_MISSES:
            return self._line
        for written in (json.dumps(source, ensure_ascii=False)[1:-1], json.dumps(source)[1:-1]):
            found = self._text.find(written, self._position)
            if found >= 0:
                self._line += self._text.count("\n", self._position, found)
                self._position = found
                return self._line
        self._misses += 1
        return self._line


def _parse(path: str, raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ManifestError(path=path, line=line, reason="is not UTF-8; save it as UTF-8") from error
    except json.JSONDecodeError as error:
        reason = f"is not a notebook: {error.msg}"
        raise ManifestError(path=path, line=error.lineno, column=error.colno, reason=reason) from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(path=path, reason="is not a notebook: its JSON is nested too deep") from error
    if not isinstance(document, dict) or not {"cells", "worksheets"} & document.keys():
        raise ManifestError(path=path, line=1, reason="is not a notebook: it has no cells")
    if not isinstance(document.get("worksheets", []), list):
        raise ManifestError(path=path, line=1, reason="is not a notebook: worksheets must be a list")
    return document


def _check_language(path: str, document: dict[str, Any]) -> None:
    metadata = document.get("metadata")
    facts = metadata if isinstance(metadata, dict) else {}
    for key, field in (("language_info", "name"), ("kernelspec", "language")):
        table = facts.get(key)
        language = table.get(field) if isinstance(table, dict) else None
        if isinstance(language, str) and language and not language.lower().startswith(("python", "ipython")):
            raise ManifestError(path=path, line=1, reason=f"its language is {language[:40]}; only Python can be run")


def _cells(path: str, sheet: dict[str, Any]) -> list[Any]:
    cells = sheet.get("cells", [])
    if not isinstance(cells, list):
        raise ManifestError(path=path, line=1, reason="is not a notebook: cells must be a list")
    return cells


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source", cell.get("input", ""))
    return "".join(map(str, source)) if isinstance(source, list) else str(source)


def _python(source: list[str]) -> list[str]:
    """The lines of a cell without IPython's own syntax; what that says is kept as a comment."""
    first = next((line.strip() for line in source if line.strip()), "")
    if first.startswith("%%") and first.split()[0] not in PYTHON_BODIES:
        return [f"# {line}" for line in source]
    return [_python_line(line) for line in source]


def _python_line(line: str) -> str:
    statement = STATEMENT_MAGIC.match(line.lstrip())
    if statement:
        return statement["statement"]
    magic = MAGIC.match(line)
    if magic:
        return f"{magic['indent']}pass  # {magic['magic']}"
    assigned = ASSIGNED.match(line)
    return f"{assigned['before']}None  # {line.strip()}" if assigned else line
