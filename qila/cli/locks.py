"""The commands about what is installed: locks, SBOMs, comparisons."""

from __future__ import annotations

import sys

import click

from qila.cli.options import address_option
from qila.client import Client


@click.command()
@address_option
@click.argument("sandbox")
@click.argument("exec_id", default="", metavar="[EXEC]")
def lock(*, address: str, sandbox: str, exec_id: str) -> None:
    """Print qila.lock.json of an exec; by default of the newest that has one."""
    with Client(address) as client:
        sys.stdout.buffer.write(client.lock(sandbox, exec_id).lock)
        sys.stdout.buffer.flush()
