"""One installation for the whole suite and a box for each attack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import stack as stacks
from . import upstream as upstreams
from .boxes import Box, Boxes, Clone, Shipped
from .frame import Setting
from .mirror import Mirror, way
from .oracles import HostServices, Wire
from .stack import Stack
from .upstream import Upstream


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
