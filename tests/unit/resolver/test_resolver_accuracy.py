"""The import table against a held-out set: what the pyodide npm package's lock file says provides what."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from services.resolver.python.table import import_table

HELD_OUT = Path(__file__).parents[2] / "cases" / "resolver" / "pyodide_imports.json"


def score(answers: dict[str, str], rows: list[list[str]]) -> tuple[int, int]:
    """How many imports are answered rightly, and how many wrongly; the rest are not answered."""
    right = sum(
        canonicalize_name(answers[module]) == canonicalize_name(name) for module, name in rows if module in answers
    )
    return right, sum(module in answers for module, _ in rows) - right


def test_table_beats_the_mapping_of_pipreqs() -> None:
    rows = json.loads(HELD_OUT.read_text(encoding="utf-8"))["imports"]
    modules = {module for module, _ in rows}
    lines = files("pipreqs").joinpath("mapping").read_text(encoding="utf-8").split()
    mapping = dict(line.split(":", 1) for line in lines)
    found = {module: import_table().find(module) for module in modules}
    ours = {module: Requirement(row.requirement).name for module, row in found.items() if row}
    our_right, our_wrong = score(ours, rows)
    mapped_right, _ = score({module: name for module, name in mapping.items() if module in modules}, rows)
    # What pipreqs answers without a network: its mapping, else the module's own name, known or not.
    _, guessed_wrong = score({module: mapping.get(module, module) for module in modules}, rows)
    assert our_right > mapped_right
    assert our_right >= len(rows) * 0.84
    assert our_wrong * 5 < guessed_wrong
