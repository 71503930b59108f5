"""The command about images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from qila.cli.options import address_option, echo_json, json_option_of
from qila.cli.render import one_line
from qila.client import Client

if TYPE_CHECKING:
    from qila.gateway.v1 import gateway_pb2 as pb

# What a person chooses an image by.
_LANGUAGES: Final = ("python", "node", "go", "java")


@click.command()
@address_option
@json_option_of("Print every image as one line of JSON, with all its toolchains; errors too, on stderr.")
def images(*, address: str, as_json: bool) -> None:
    """List the images that a sandbox can be made from, with their languages; the default first."""
    with Client(address) as client:
        for image in client.images():
            if as_json:
                echo_json(image)
            else:
                click.echo(describe(image))


def describe(image: pb.Image) -> str:
    """One line: its name and the versions of its languages."""
    versions = [f"{name} {image.toolchains[name]}" for name in _LANGUAGES if name in image.toolchains]
    return one_line(f"{image.name:16} {', '.join(versions)}")
