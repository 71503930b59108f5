"""What a figure is: ours against a named baseline, interleaved so that a noisy machine troubles both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row: medians in milliseconds; `ratio` is baseline / ours, so above 1 means that ours is faster."""

    name: str
    ours: float
    baseline: float
    baseline_name: str
    ratio: float
    runs: int


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
    return Figure(name=name, ours=mine, baseline=theirs, baseline_name=label, ratio=theirs / mine, runs=len(ours))


def table(figures: list[Figure]) -> str:
    lines = ["| figure | ours, ms | baseline | baseline, ms | times faster | runs |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row.name} | {row.ours:.1f} | {row.baseline_name} | {row.baseline:.1f} | {row.ratio:.1f} | {row.runs} |"
        for row in figures
    ]
    return "\n".join(lines) + "\n"
