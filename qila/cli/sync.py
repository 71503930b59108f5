"""`qila sync`: only what changed goes up, by content."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qila.cli.options import address_option, json_option
from qila.cli.render import one_line
from qila.cli.upload import SKIPPED_DIRECTORIES, find_files, send
from qila.client import Client, NotFoundError
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qila.client.trees import LocalFile

_LOOK_MS: Final = 500


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one pass did: paths below the directory, and how many files were left as they are."""

    uploaded: Sequence[str]
    removed: Sequence[str]
    unchanged: int


class Digests:
    """SHA-256 of local files; what has the same size and time as before is not read again."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def of(self, path: Path) -> str:
        """In lower-case hex."""
        status = path.stat()
        state = (status.st_size, status.st_mtime_ns, status.st_ino)
        known = self._known.get(path)
        if known is None or known[0] != state:
            with path.open("rb") as file:
                known = (state, hashlib.file_digest(file, "sha256").hexdigest())
            self._known[path] = known
        return known[1]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to: a directory of a workspace, empty for the workspace itself."""

    sandbox_id: str
    path: str

    def below(self, name: str) -> str:
        """The path in the workspace of a file of the tree."""
        return f"{self.path}/{name}" if self.path else name


def sync_once(client: Client, directory: Path, place: Place, digests: Digests, *, delete: bool) -> Outcome:
    """Uploads what differs, and with `delete` removes what is only in the sandbox. QilaError."""
    files = find_files(directory, "", lambda text: click.echo(text, err=True))
    named = [
        pb.TreeFile(path=file.path, size=file.size, sha256=digests.of(file.source), executable=file.executable)
        for file in files
    ]
    found = client.compare_tree(place.sandbox_id, named, place.path, ignored_names=sorted(SKIPPED_DIRECTORIES))
    wanted = set(found.different)
    uploads = [_placed(file, place) for file in files if file.path in wanted]
    if uploads:
        send(client, place.sandbox_id, uploads)
    removed = [path for path in found.beyond if delete and _remove(client, place, path)]
    return Outcome(uploaded=sorted(wanted), removed=removed, unchanged=len(files) - len(uploads))


def _placed(file: LocalFile, place: Place) -> LocalFile:
    return replace(file, path=place.below(file.path))


def _remove(client: Client, place: Place, path: str) -> bool:
    try:
        client.rm(place.sandbox_id, place.below(path))
    except NotFoundError:
        # A program was quicker.
        return False
    return True


@click.command()
@address_option
@click.option("--delete", is_flag=True, help="Remove files of the sandbox that DIR does not have.")
@click.option("--watch", "watches", is_flag=True, help="Go on whenever DIR changes, until Ctrl-C.")
@json_option
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", metavar="SANDBOX[:PATH]")
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


def _show(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        fields = {"uploaded": outcome.uploaded, "removed": outcome.removed, "unchanged": outcome.unchanged}
        click.echo(json.dumps(fields))
        return
    for path in outcome.uploaded:
        click.echo(f"+ {one_line(path)}")
    for path in outcome.removed:
        click.echo(f"- {one_line(path)}")
    click.echo(
        f"{len(outcome.uploaded)} uploaded, {len(outcome.removed)} removed, {outcome.unchanged} unchanged", err=True
    )
