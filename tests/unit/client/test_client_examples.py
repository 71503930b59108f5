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
from qila.client import (
    AsyncClient,
    Client,
    async_client,
    async_files,
    async_handles,
    client,
    errors,
    files,
    handles,
    watches,
)

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


def _directories(directory: Path) -> dict[str, Path]:
    """A program, and where examples may download to."""
    downloads = directory / "downloads"
    downloads.mkdir()
    program = directory / "main.py"
    program.write_text("print('hello')")
    return {"program": program, "downloads": downloads}


def _of_module(module: Any, **names: Any) -> list[doctest.DocTest]:
    with Client(os.environ["QILA_GATEWAY_ADDRESS"]) as connected:
        found = doctest.DocTestFinder().find(module, extraglobs={**_names(connected), **names})
        tests = [test for test in found if test.examples]
        _check(tests)
    return tests


@pytest.mark.parametrize("module", [client, async_client, files, async_files, errors, watches])
def test_examples_over_the_fakes(fakes: FakesServer, module: Any, tmp_path: Path) -> None:
    assert _of_module(module, **_directories(tmp_path))


@pytest.mark.parametrize("module", [handles, async_handles])
def test_examples_of_inputs(gateway: ScriptedGateway, module: Any) -> None:
    assert _of_module(module)


def _sections(titles: set[str], **names: Any) -> list[doctest.DocTest]:
    """The examples below some headings of the page, as one run."""
    sections = (ROOT / "docs/python-sdk.md").read_text().split("\n## ")
    text = "\n".join(part.replace("```", "") for part in sections if part.partition("\n")[0] in titles)
    with Client(os.environ["QILA_GATEWAY_ADDRESS"]) as connected:
        test = doctest.DocTestParser().get_doctest(text, {**_names(connected), **names}, "python-sdk.md", None, 0)
        _check([test])
    return [test]


def test_page_over_the_fakes(fakes: FakesServer, tmp_path: Path) -> None:
    assert _sections({"A program, and what it wrote", "Events, as they happen", "Files that change"})
    assert _sections({"Files and trees"}, **_directories(tmp_path))


def test_page_of_inputs(gateway: ScriptedGateway) -> None:
    assert _sections({"Input, signals, terminals", "Asynchronous"})
