"""The examples of the client's docstrings and of docs/python-sdk.md, run."""

from __future__ import annotations

import asyncio
import doctest
import io
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import qila.client
from qila.client import AsyncClient, Client, async_client, async_handles, client, errors, handles

from .fakes_server import FakesServer
from .scripted_gateway import SANDBOX, ScriptedGateway

ROOT = Path(__file__).parents[3]


def _names(connected: Client) -> dict[str, Any]:
    def awaited(use: Callable[[AsyncClient], Awaitable[Any]]) -> Any:
        async def connect() -> Any:
            async with AsyncClient(os.environ["QILA_GATEWAY_ADDRESS"]) as opened:
                return await use(opened)

        return asyncio.run(connect())

    names = {name: getattr(qila.client, name) for name in qila.client.__all__}
    return {**names, "client": connected, "sandbox_id": SANDBOX, "io": io, "awaited": awaited}


def _check(tests: list[doctest.DocTest]) -> None:
    runner = doctest.DocTestRunner()
    for test in tests:
        runner.run(test, clear_globs=False)
    result = runner.summarize()
    assert (result.failed, result.attempted > 0) == (0, True)


def _of_module(module: Any) -> list[doctest.DocTest]:
    with Client(os.environ["QILA_GATEWAY_ADDRESS"]) as connected:
        found = doctest.DocTestFinder().find(module, extraglobs=_names(connected))
        tests = [test for test in found if test.examples]
        _check(tests)
    return tests


@pytest.mark.parametrize("module", [client, async_client, errors])
def test_examples_over_the_fakes(fakes: FakesServer, module: Any) -> None:
    assert _of_module(module)


@pytest.mark.parametrize("module", [handles, async_handles])
def test_examples_of_inputs(gateway: ScriptedGateway, module: Any) -> None:
    assert _of_module(module)


def _sections(titles: set[str]) -> list[doctest.DocTest]:
    """The examples below some headings of the page, as one run."""
    sections = (ROOT / "docs/python-sdk.md").read_text().split("\n## ")
    text = "\n".join(part.replace("```", "") for part in sections if part.partition("\n")[0] in titles)
    with Client(os.environ["QILA_GATEWAY_ADDRESS"]) as connected:
        test = doctest.DocTestParser().get_doctest(text, _names(connected), "python-sdk.md", None, 0)
        _check([test])
    return [test]


def test_page_over_the_fakes(fakes: FakesServer) -> None:
    assert _sections({"A program, and what it wrote", "Events, as they happen"})


def test_page_of_inputs(gateway: ScriptedGateway) -> None:
    assert _sections({"Input, signals, terminals", "Asynchronous"})
