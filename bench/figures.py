"""What a figure is: ours against a named baseline, interleaved so that a noisy machine troubles both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row: medians in milliseconds; `ratio` is baseline / ours, so above 1 means that ours is faster.

    `overhead` is what ours takes longer than the baseline, in milliseconds; below 0 if it is faster.
    """

    name: str
    ours: float
    baseline: float
    baseline_name: str
    ratio: float
    runs: int
    overhead: float


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def compare(name: str, ours: Callable[[], object], baseline: Callable[[], object], label: str, runs: int) -> Figure:
    ours()
    baseline()
    rows = [(milliseconds(ours), milliseconds(baseline)) for _ in range(runs)]
    return figure(name, [row[0] for row in rows], [row[1] for row in rows], label)


def figure(name: str, ours: list[float], baseline: list[float], label: str) -> Figure:
    mine, theirs = statistics.median(ours), statistics.median(baseline)
    return Figure(
        name=name,
        ours=mine,
        baseline=theirs,
        baseline_name=label,
        ratio=theirs / mine,
        runs=len(ours),
        overhead=mine - theirs,
    )


def table(figures: list[Figure]) -> str:
    header = ["figure", "ours, ms", "baseline", "baseline, ms", "times faster", "overhead, ms", "runs"]
    rows = [header, ["---"] * len(header), *map(cells, figures)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def cells(row: Figure) -> list[str]:
    ours, baseline = f"{row.ours:.1f}", f"{row.baseline:.1f}"
    return [row.name, ours, row.baseline_name, baseline, f"{row.ratio:.1f}", f"{row.overhead:.1f}", str(row.runs)]
