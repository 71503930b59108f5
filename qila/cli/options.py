"""Options that several commands take."""

from __future__ import annotations

import click

from qila.client.client import DEFAULT_ADDRESS

address_option = click.option(
    "--address",
    envvar="QILA_GATEWAY_ADDRESS",
    default=DEFAULT_ADDRESS,
    show_default=True,
    help="The gateway (QILA_GATEWAY_ADDRESS).",
)
