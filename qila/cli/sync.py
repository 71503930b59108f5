"""`qila sync`: only what changed goes up, by content."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qila.cli.options import SandboxId, address_option, echo_json, json_option
from qila.cli.render import one_line
from qila.cli.speech import tell, warn
from qila.cli.upload import SKIPPED_DIRECTORIES, find_files
from qila.client import Client, Digests, QilaError, TreeSync

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOOK_MS: Final = 500


def sync_once(client: Client, directory: Path, place: Place, digests: Digests, *, delete: bool) -> TreeSync:
    """Uploads what differs, and with `delete` removes what is only in the sandbox. QilaError."""
    files = find_files(directory, "", warn)
    return client.sync_tree(
        place.sandbox_id,
        files,
        place.path,
        delete=delete and (lambda path: not _is_left_out(directory, path)),
        ignored_names=sorted(SKIPPED_DIRECTORIES),
        digests=digests,
    )


def _is_left_out(directory: Path, path: str) -> bool:
    """Whether DIR has a link or the like there, or above it: what is not uploaded is not removed either."""
    for part in path.split("/"):
        directory /= part
        try:
            mode = directory.lstat().st_mode
        except (OSError, ValueError):
            return False
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            return True
    return False


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to: a directory of a workspace, empty for the workspace itself."""

    sandbox_id: str
    path: str


@click.command()
@address_option
@click.option("--delete", is_flag=True, help="Remove files of the sandbox that DIR does not have.")
@click.option("--watch", "watches", is_flag=True, help="Go on whenever DIR changes, until Ctrl-C.")
@json_option
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=SandboxId(), metavar="SANDBOX[:PATH]")
def sync(*, address: str, delete: bool, watches: bool, as_json: bool, directory: Path, target: str) -> None:
    """Upload only what changed in DIR, by content; what `qila put` leaves out is left out and left alone."""
    sandbox_id, _, path = target.partition(":")
    place = Place(sandbox_id=sandbox_id, path=path.strip("/"))
    digests = Digests()
    with Client(address) as client:
        _show(sync_once(client, directory, place, digests, delete=delete), as_json=as_json)
        if watches:
            for _ in _changes(directory):
                try:
                    outcome = sync_once(client, directory, place, digests, delete=delete)
                except FileNotFoundError:
                    # It went while it was read: that change is still to come.
                    continue
                except QilaError as error:
                    if error.reason != "FILE_CHANGED":
                        raise
                    # So is that of a file that is being written.
                    continue
                if outcome.uploaded or outcome.removed:
                    _show(outcome, as_json=as_json)


def _changes(directory: Path) -> Iterator[None]:
    """Once when the directory is watched, for what changed before that, and then whenever something does."""
    from watchfiles import DefaultFilter, watch  # noqa: PLC0415 - it takes its time to load

    ignored = DefaultFilter(ignore_dirs=tuple(SKIPPED_DIRECTORIES), ignore_entity_patterns=(), ignore_paths=())
    begun = False
    for changes in watch(directory, watch_filter=ignored, rust_timeout=_LOOK_MS, yield_on_timeout=True):
        if changes or not begun:
            yield
        begun = True


def _show(outcome: TreeSync, *, as_json: bool) -> None:
    if as_json:
        echo_json({"uploaded": outcome.uploaded, "removed": outcome.removed, "unchanged": outcome.unchanged})
        return
    for path in outcome.uploaded:
        click.echo(f"+ {one_line(path)}")
    for path in outcome.removed:
        click.echo(f"- {one_line(path)}")
    tell(f"{len(outcome.uploaded)} uploaded, {len(outcome.removed)} removed, {outcome.unchanged} unchanged")
