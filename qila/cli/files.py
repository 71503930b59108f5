"""The commands about the files of a workspace; those that also name a whole sandbox are here too."""

from __future__ import annotations

import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import click

from qila.cli.options import SandboxId, address_option, echo_json, json_option, sandbox_argument
from qila.cli.render import as_line, one_line, printable
from qila.cli.speech import warn
from qila.cli.upload import find_files
from qila.client import Client
from qila.client.file_requests import MAX_DEPTH
from qila.client.trees import LocalFile, unpack
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS: Final = {pb.FILE_KIND_DIRECTORY: "d", pb.FILE_KIND_LINK: "l", pb.FILE_KIND_FILE: "-"}


@click.command()
@address_option
@json_option
@sandbox_argument
@click.argument("sources", nargs=-1, required=True, type=click.Path(), metavar="FILE|DIR... [:PATH]")
def put(*, address: str, as_json: bool, sandbox: str, sources: tuple[str, ...]) -> None:
    """Upload files, or what directories hold, to the workspace or to :PATH in it.

    One FILE goes to :PATH itself, unless that ends in "/"; several go below it.
    """
    *local, last = sources
    target = last.removeprefix(":") if last.startswith(":") else ""
    names = local if last.startswith(":") else list(sources)
    if not names:
        raise click.UsageError("name at least one FILE or DIR before :PATH")
    files: list[LocalFile] = []
    for name in names:
        source = Path(name)
        exact = bool(target) and not target.endswith("/") and len(names) == 1
        prefix = target.rstrip("/")
        if not source.is_dir() and not exact:
            prefix = f"{prefix}/{source.name}" if prefix else source.name
        files += find_files(source, prefix, warn)
    with Client(address) as client:
        client.put_files(sandbox, files)
    if as_json:
        for file in files:
            echo_json({"path": file.path, "size": file.size, "executable": file.executable})


@click.command()
@address_option
@click.option("-R", "recursive", is_flag=True, help="Also what is below, 64 levels deep at most.")
@click.option("--pattern", "patterns", multiple=True, help="Only what matches, as '**/*.py'; may be repeated.")
@json_option
@click.argument("sandbox", type=SandboxId(), required=False)
@click.argument("path", default="")
def ls(
    *, address: str, recursive: bool, patterns: tuple[str, ...], as_json: bool, sandbox: str | None, path: str
) -> None:
    """List the sandboxes, or a directory of one."""
    with Client(address) as client:
        if sandbox is None:
            for found in client.sandboxes():
                click.echo(
                    as_line(found)
                    if as_json
                    else f"{found.id}  {found.create_time.ToJsonString()}  {found.language}".rstrip()
                )
            return
        for file in client.ls(sandbox, path, depth=MAX_DEPTH if recursive else 1, patterns=patterns):
            click.echo(as_line(file) if as_json else _describe(file))


@click.command()
@address_option
@json_option
@click.argument("place", type=SandboxId(), metavar="SANDBOX[:PATH]")
def stat(*, address: str, as_json: bool, place: str) -> None:
    """Show what a path of a workspace is: its kind, size in bytes, time of change."""
    sandbox, _, path = place.partition(":")
    with Client(address) as client:
        file = client.stat(sandbox, path)
    if as_json:
        click.echo(as_line(file))
        return
    changed = datetime.fromtimestamp(file.mtime_ns / 1e9, tz=UTC).isoformat(timespec="milliseconds")
    click.echo(f"{_describe(file)}  {changed}")


@click.command()
@address_option
@click.option("--replace", is_flag=True, help="A file at TARGET gives way.")
@json_option
@click.argument("source", type=SandboxId(), metavar="SANDBOX:SOURCE")
@click.argument("target")
def mv(*, address: str, replace: bool, as_json: bool, source: str, target: str) -> None:
    """Give a file or directory of a workspace another path, atomically."""
    sandbox, path = _place(source)
    with Client(address) as client:
        client.mv(sandbox, path, target, replace=replace)
    if as_json:
        echo_json({"sandbox_id": sandbox, "source": path, "target": target})


@click.command()
@address_option
@json_option
@click.argument("place", type=SandboxId(), metavar="SANDBOX:PATH")
def mkdir(*, address: str, as_json: bool, place: str) -> None:
    """Make a directory in a workspace, and those above it."""
    sandbox, path = _place(place)
    with Client(address) as client:
        client.mkdir(sandbox, path)
    if as_json:
        echo_json({"sandbox_id": sandbox, "path": path})


def _place(text: str) -> tuple[str, str]:
    sandbox, _, path = text.partition(":")
    if not path:
        raise click.UsageError(f"{text}: name a path, as SANDBOX:PATH")
    return sandbox, path


def _describe(file: pb.FileInfo) -> str:
    link = f" -> {file.link_target}" if file.link_target else ""
    kind = _KINDS.get(file.kind, "?")
    return one_line(f"{kind}{'x' if file.executable else '-'} {file.size:>12} {file.name}{link}")


@click.command()
@address_option
@json_option
@click.argument("source", type=SandboxId(), metavar="SANDBOX:PATH")
@click.argument("destination", type=click.Path(), default="", metavar="[DEST]")
def get(*, address: str, as_json: bool, source: str, destination: str) -> None:
    """Download a file or directory to DEST, or a file, or a directory as a tar archive, to stdout ("-")."""
    sandbox, _, path = source.partition(":")
    name = PurePosixPath(path).name
    if not path or name in {"", ".", ".."}:
        raise click.UsageError("name a file or directory: SANDBOX:PATH")
    if as_json and destination == "-":
        raise click.UsageError('--json and "-": stdout holds the file; name a DEST')
    with Client(address) as client:
        is_directory = client.stat(sandbox, path).kind == pb.FILE_KIND_DIRECTORY
        chunks = client.get_tree(sandbox, path) if is_directory else client.get(sandbox, path)
        if destination == "-":
            for chunk in chunks:
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return
        target = Path(destination or name)
        target = target / name if target.is_dir() else target
        if is_directory:
            _unpack(chunks, target)
        else:
            _write(chunks, target)
    if as_json:
        kind = "directory" if is_directory else "file"
        echo_json({"sandbox_id": sandbox, "path": path, "kind": kind, "destination": str(target)})


def _unpack(chunks: Iterator[bytes], target: Path) -> None:
    if target.exists():
        raise click.ClickException(f"{target}: is there already; name another DEST, or remove it")
    try:
        unpack(chunks, target)
    except tarfile.TarError as error:
        raise click.ClickException(f"the sandbox sent an archive that is refused: {printable(str(error))}") from error


def _write(chunks: Iterator[bytes], target: Path) -> None:
    # A file that was cut off must not look like a whole one.
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as partial:
        try:
            for chunk in chunks:
                partial.write(chunk)
            Path(partial.name).replace(target)
        except BaseException:
            Path(partial.name).unlink(missing_ok=True)
            raise


@click.command()
@address_option
@json_option
@click.argument("target", type=SandboxId(), metavar="SANDBOX[:PATH]")
def rm(*, address: str, as_json: bool, target: str) -> None:
    """Remove a sandbox with all its files, or one file or directory of it."""
    sandbox, colon, path = target.partition(":")
    if colon and not path:
        raise click.UsageError("nothing after ':'; name a PATH, or leave ':' out to remove the whole sandbox")
    with Client(address) as client:
        if path:
            client.rm(sandbox, path)
        else:
            client.remove_sandbox(sandbox)
    if as_json:
        echo_json({"sandbox_id": sandbox, **({"path": path} if path else {})})


COMMANDS: Final = (put, ls, stat, get, mv, mkdir, rm)
