"""What tests of every kind share, and a table of what held at the end.

The process that hears of the tests of all workers reads no other file of this kind.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What each attack met.
_ROWS: dict[str, dict[str, str]] = {}


@pytest.fixture(scope="session")
def sandbox_image() -> str:
    """Name of the sandbox image of this tree, which `make image` has built."""
    shown = subprocess.run(
        [ROOT / "scripts" / "image", "--tag"], check=True, capture_output=True, text=True, timeout=60
    )
    return shown.stdout.strip()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "attack" in report.keywords and (report.when == "call" or not report.passed):
        _note(report, report.location[2])


def _note(report: pytest.TestReport, test: str) -> None:
    name, _, parameters = test.removeprefix("test_").partition("[")
    others, _, setting = parameters.removesuffix("]").rpartition("shipped" if "shipped" in parameters else "weakened")
    key = " ".join(part for part in (name.replace("_", " "), others.strip("-") or setting.partition("-")[2]) if part)
    shipped = "shipped" in parameters
    _ROWS.setdefault(key, {})["shipped" if shipped else "weakened"] = _verdict(report, shipped=shipped)


def _verdict(report: pytest.TestReport, *, shipped: bool) -> str:
    if report.skipped:
        return "not here"
    if shipped:
        return "held" if report.passed else "BROKEN"
    return "comes through" if report.passed else "NOT SEEN"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not _ROWS:
        return
    terminalreporter.section("attacks")
    width = max(map(len, _ROWS))
    terminalreporter.write_line(f"{'attack':{width}}  {'shipped':13}  weakened on purpose")
    for name, verdicts in sorted(_ROWS.items()):
        terminalreporter.write_line(f"{name:{width}}  {verdicts.get('shipped', ''):13}  {verdicts.get('weakened', '')}")
