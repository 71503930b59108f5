"""`qila mcp`: the tools for a model."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import click

from qila.cli.options import SandboxId, address_option, json_option_of


@click.command()
@address_option
@click.option("--sandbox", type=SandboxId(), default="", help="Work in this one, and keep it.")
@json_option_of("Tell errors on stderr in JSON; what the protocol says is JSON in any case.", answers=False)
def mcp(*, address: str, sandbox: str) -> None:
    """Speak the Model Context Protocol on stdin and stdout: run code, files, dependencies, locks, SBOMs.

    Each session has a sandbox of its own, which is removed at its end, unless one is named.
    """
    try:
        # What it needs is an extra of the package, and takes seconds to load.
        server: Any = importlib.import_module("qila.mcp.server")
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed: pip install 'qila[mcp]'") from error
    asyncio.run(server.serve(address, sandbox))
