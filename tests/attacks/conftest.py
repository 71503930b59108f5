"""One installation for the whole suite, a box for each attack, and a table of what held at the end."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from . import stack as stacks
from . import upstream as upstreams
from .boxes import Box, Boxes, Clone, Shipped
from .frame import Setting
from .mirror import Mirror, way
from .oracles import HostServices, Wire
from .stack import Stack
from .upstream import Upstream

_ROWS = pytest.StashKey[dict[str, dict[str, str]]]()


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    with upstreams.serve() as served:
        yield served


@pytest.fixture(scope="session")
def stack(sandbox_image: str, upstream: Upstream) -> Iterator[Stack]:
    started = stacks.start(sandbox_image, upstream.url)
    yield started
    stacks.stop(started)


@pytest.fixture(scope="module")
def boxes(stack: Stack) -> Iterator[Boxes]:
    made = Boxes(stack)
    yield made
    made.close()


@pytest.fixture
def box(request: pytest.FixtureRequest, boxes: Boxes, stack: Stack) -> Iterator[Box]:
    weakness, fresh = request.param
    if not fresh:
        yield boxes.shipped if weakness is None else boxes.clone(weakness)
    elif weakness is None:
        shipped = Shipped(stack)
        yield shipped
        shipped.close()
    else:
        with Clone(boxes.shipped, weakness) as clone:
            yield clone


@pytest.fixture
def mirror(setting: Setting, boxes: Boxes, upstream: Upstream) -> Iterator[Mirror]:
    with way(setting, boxes, upstream) as mirror:
        yield mirror


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire() as wire:
        yield wire


@pytest.fixture
def host() -> Iterator[HostServices]:
    with HostServices() as services:
        yield services


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.get_closest_marker("attack") and (report.when == "call" or not report.passed):
        name, _, parameters = item.name.removeprefix("test_").partition("[")
        others, _, setting = parameters.removesuffix("]").rpartition(
            "shipped" if "shipped" in parameters else "weakened"
        )
        key = " ".join(
            part for part in (name.replace("_", " "), others.strip("-") or setting.partition("-")[2]) if part
        )
        rows = item.config.stash[_ROWS].setdefault(key, {})
        rows["shipped" if "shipped" in parameters else "weakened"] = _verdict(report, shipped="shipped" in parameters)
    return report


def _verdict(report: pytest.TestReport, *, shipped: bool) -> str:
    if report.skipped:
        return "not here"
    if shipped:
        return "held" if report.passed else "BROKEN"
    return "comes through" if report.passed else "NOT SEEN"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash[_ROWS]
    if not rows:
        return
    terminalreporter.section("attacks")
    width = max(len(name) for name in rows)
    terminalreporter.write_line(f"{'attack':{width}}  {'shipped':13}  weakened on purpose")
    for name, verdicts in sorted(rows.items()):
        terminalreporter.write_line(f"{name:{width}}  {verdicts.get('shipped', ''):13}  {verdicts.get('weakened', '')}")
