"""`qila forward`: ports of this machine that lead into a sandbox."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Final

import click

from qila.cli.options import address_option, echo_json, json_option, sandbox_argument
from qila.cli.speech import report
from qila.client import Client
from qila.client.port_streams import Forwarder, listen

if TYPE_CHECKING:
    import socket

_LAST_PORT: Final = 65535


class PortPair(click.ParamType[tuple[int, int]]):
    """`[LOCAL:]PORT`, as (local, remote)."""

    name = "port pair"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """The two numbers; fails with what is expected."""
        if isinstance(value, tuple):
            return value
        local, _, remote = str(value).rpartition(":")
        numbers = [part for part in (local or remote, remote) if part.isdecimal() and int(part) <= _LAST_PORT]
        if len(numbers) != 2 or not int(remote):  # noqa: PLR2004 - a pair
            self.fail(f"{value!r} is not [LOCAL:]PORT, as 8000 or 9000:8000; LOCAL 0 takes a free port", param, ctx)
        return int(numbers[0]), int(numbers[1])


@click.command()
@address_option
@json_option
@sandbox_argument
@click.argument("ports", nargs=-1, required=True, type=PortPair(), metavar="[LOCAL:]PORT...")
def forward(*, address: str, as_json: bool, sandbox: str, ports: tuple[tuple[int, int], ...]) -> None:
    """Reach TCP ports that programs in a sandbox listen on, at 127.0.0.1 of this machine, until Ctrl-C.

    A connection that comes before the program listens is closed, and it is said why.
    """
    with Client(address) as client:
        # One clear answer for a sandbox that is not there.
        client.sandbox(sandbox)
        forwarders = []
        try:
            for local, remote in ports:
                listener = _listen(local)
                forwarder = Forwarder(
                    functools.partial(client.connect_port, sandbox, remote),
                    listener,
                    functools.partial(report, as_json=as_json),
                )
                forwarders.append(forwarder)
                threading.Thread(target=forwarder.serve, daemon=True).start()
                place = f"127.0.0.1:{listener.getsockname()[1]}"
                if as_json:
                    echo_json({"address": place, "sandbox_id": sandbox, "port": remote})
                else:
                    click.echo(f"{place} leads to port {remote} of {sandbox}")
            threading.Event().wait()
        except KeyboardInterrupt:
            return
        finally:
            for forwarder in forwarders:
                forwarder.close()


@click.command()
@address_option
@click.option("--ttl", type=click.FloatRange(min=1, max=86_400), help="Seconds for which the URL works; one hour.")
@json_option
@sandbox_argument
@click.argument("port", type=click.IntRange(1, _LAST_PORT))
def preview(*, address: str, ttl: float | None, as_json: bool, sandbox: str, port: int) -> None:
    """Print a URL at which a browser on this machine sees an HTTP server in the sandbox. Whoever has it may use it."""
    with Client(address) as client:
        made = client.preview(sandbox, port, ttl)
    if as_json:
        echo_json(made)
    else:
        click.echo(made.url)


def _listen(port: int) -> socket.socket:
    try:
        return listen(port)
    except OSError as error:
        raise click.ClickException(f"127.0.0.1:{port}: {error.strerror}; choose another: LOCAL:PORT") from error
