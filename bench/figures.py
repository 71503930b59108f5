"""What a figure is: ours against a named baseline, interleaved so that a noisy machine troubles both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row: medians, in milliseconds unless `unit` says otherwise. `ratio` is baseline / ours: above 1 is better.

    `overhead` is what ours takes more than the baseline; below 0 if it takes less.
    """

    name: str
    ours: float
    baseline: float
    baseline_name: str
    ratio: float
    runs: int
    overhead: float
    unit: str = "ms"


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def compare(name: str, ours: Callable[[], object], baseline: Callable[[], object], label: str, runs: int) -> Figure:
    ours()
    baseline()
    rows = [(milliseconds(ours), milliseconds(baseline)) for _ in range(runs)]
    return figure(name, [row[0] for row in rows], [row[1] for row in rows], label)


def figure(name: str, ours: list[float], baseline: list[float], label: str, unit: str = "ms") -> Figure:
    mine, theirs = statistics.median(ours), statistics.median(baseline)
    return Figure(
        name=name,
        ours=mine,
        baseline=theirs,
        baseline_name=label,
        ratio=theirs / mine,
        runs=len(ours),
        overhead=mine - theirs,
        unit=unit,
    )


def table(figures: list[Figure]) -> str:
    header = ["figure", "ours", "baseline", "takes", "times better", "overhead", "runs"]
    rows = [header, ["---"] * len(header), *map(cells, figures)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def cells(row: Figure) -> list[str]:
    ours, baseline, overhead = (f"{value:.1f} {row.unit}" for value in (row.ours, row.baseline, row.overhead))
    return [row.name, ours, row.baseline_name, baseline, f"{row.ratio:.1f}", overhead, str(row.runs)]
