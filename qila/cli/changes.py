"""`qila watch`: what changes in a workspace, as it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from google.protobuf.json_format import MessageToDict

from qila.cli.options import SandboxId, address_option, echo_json, json_option
from qila.cli.render import one_line
from qila.cli.speech import tell
from qila.cli.upload import SKIPPED_DIRECTORIES
from qila.client import Client, Resync
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from qila.client import FileEvent

_SIGNS: Final = {
    pb.FILE_CHANGE_KIND_CREATED: "+",
    pb.FILE_CHANGE_KIND_MODIFIED: "~",
    pb.FILE_CHANGE_KIND_REMOVED: "-",
    pb.FILE_CHANGE_KIND_MOVED: ">",
}
_ENDS: Final = {
    pb.WATCH_END_REASON_PATH_GONE: "the directory is gone",
    pb.WATCH_END_REASON_SANDBOX_STOPPED: "nobody used the sandbox, and it was stopped; watch again to start it",
    pb.WATCH_END_REASON_SANDBOX_REMOVED: "the sandbox was removed",
    pb.WATCH_END_REASON_TOO_LARGE: "there is more than can be watched; watch a part, or --ignore directories",
    pb.WATCH_END_REASON_WATCH_LIMIT: "the host watches no more directories; end other watches, or watch a part",
}


@click.command()
@address_option
@click.option("--pattern", "patterns", multiple=True, help="Only what matches, as '**/*.py'; may be repeated.")
@click.option("--ignore", "ignored", multiple=True, help="Do not look into directories of this name; may be repeated.")
@click.option("--all", "all_", is_flag=True, help=f"Look into {', '.join(sorted(SKIPPED_DIRECTORIES))} too.")
@json_option
@click.argument("place", type=SandboxId(), metavar="SANDBOX[:PATH]")
def watch(
    *, address: str, patterns: tuple[str, ...], ignored: tuple[str, ...], all_: bool, as_json: bool, place: str
) -> None:
    """Print what changes in a workspace, or below PATH, until Ctrl-C: + created, ~ modified, - removed, > moved.

    A line that says so tells that changes were lost, and that it is time to list again.
    """
    sandbox, _, path = place.partition(":")
    names = sorted({*ignored, *(frozenset() if all_ else SKIPPED_DIRECTORIES)})
    with Client(address) as client, client.watch(sandbox, path, patterns=patterns, ignored_names=names) as changes:
        if as_json:
            _print("ready", pb.WatchReady())
        else:
            tell("watching")
        for event in changes:
            _show(event, as_json=as_json)
        ended = changes.ended or pb.WatchEnded()
    if as_json:
        _print("ended", ended)
    raise click.ClickException(f"the watch has ended: {_ENDS.get(ended.reason, 'the gateway does not say why')}")


def _show(event: FileEvent, *, as_json: bool) -> None:
    if isinstance(event, Resync):
        if as_json:
            _print("overflow", pb.WatchOverflow())
        else:
            click.echo("! changes were lost: list again")
    elif as_json:
        _print("change", event)
    else:
        before = f"{one_line(event.from_path)} -> " if event.from_path else ""
        slash = "/" if event.file_kind == pb.FILE_KIND_DIRECTORY else ""
        click.echo(f"{_SIGNS.get(event.kind, '?')} {before}{one_line(event.path)}{slash}")


def _print(name: str, message: Message) -> None:
    echo_json({name: MessageToDict(message, preserving_proto_field_name=True)})
