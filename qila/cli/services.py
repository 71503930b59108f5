"""The commands about the services on this machine."""

from __future__ import annotations

import os

import click
from google.protobuf.json_format import MessageToDict

from qila.cli import stack
from qila.cli.options import address_option, echo_json, json_option
from qila.cli.render import printable
from qila.cli.speech import tell


@click.command()
@address_option
@json_option
def up(*, address: str, as_json: bool) -> None:
    """Start resolver, executor and gateway on this machine."""
    services = stack.stack_from(os.environ, address)
    stack.up(services, tell)
    tell(f"Qila answers at {address}" + (f", HTTP at http://{services.http}" if services.http else ""))
    if as_json:
        echo_json({"address": address, "http": services.http or None})


@click.command()
@address_option
@json_option
def down(*, address: str, as_json: bool) -> None:
    """Stop the services that `qila up` started. Sandboxes stay."""
    stopped = stack.down(stack.stack_from(os.environ, address), tell)
    if as_json:
        echo_json({"address": address, "stopped": stopped})


@click.command()
@address_option
@json_option
def status(*, address: str, as_json: bool) -> int:
    """Show the health of each service, how workspaces are bounded, and what is free; exit code 1 if one is silent."""
    services = stack.stack_from(os.environ, address)
    found = [_look(services, name) for name in stack.NAMES]
    door = services.http and {"healthy": stack.http_answers(services), "address": f"http://{services.http}"}
    storage = stack.storage(services)
    if as_json:
        kept = None if storage is None else MessageToDict(storage, preserving_proto_field_name=True)
        echo_json({"services": found, "http": door or None, "storage": kept})
    else:
        for service in found:
            health = "healthy" if service["healthy"] else "does not answer"
            where = f"process {service['pid']}" if service["pid"] else "not started by this installation"
            click.echo(f"{service['name']:9} {health} ({where}, {service['address']})")
        if door:
            click.echo(f"{'http':9} {'healthy' if door['healthy'] else 'does not answer'} ({door['address']})")
        if storage is not None:
            click.echo(printable("\n".join(stack.describe_storage(storage))))
    return 0 if all(service["healthy"] for service in (*found, *([door] if door else []))) else 1


def _look(services: stack.Stack, name: str) -> dict[str, object]:
    process = stack.running(services, name)
    return {
        "name": name,
        "healthy": stack.healthy(services, name),
        "pid": process.pid if process else None,
        "address": services.address_of(name),
    }
