"""The commands about the files of a workspace; those that also name a whole sandbox are here too."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path, PurePosixPath
from typing import Final

import click

from qila.cli.options import address_option
from qila.cli.render import one_line
from qila.cli.upload import LocalFile, find_files, send
from qila.client import Client
from qila.gateway.v1 import gateway_pb2 as pb

_KINDS: Final = {pb.FILE_KIND_DIRECTORY: "d", pb.FILE_KIND_LINK: "l", pb.FILE_KIND_FILE: "-"}


@click.command()
@address_option
@click.argument("sandbox")
@click.argument("sources", nargs=-1, required=True, metavar="FILE|DIR... [:PATH]")
def put(*, address: str, sandbox: str, sources: tuple[str, ...]) -> None:
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
        files += find_files(source, prefix, lambda text: click.echo(text, err=True))
    with Client(address) as client:
        send(client, sandbox, files)


@click.command()
@address_option
@click.argument("sandbox", required=False)
@click.argument("path", default="")
def ls(*, address: str, sandbox: str | None, path: str) -> None:
    """List the sandboxes, or a directory of one."""
    with Client(address) as client:
        if sandbox is None:
            for found in client.sandboxes():
                click.echo(f"{found.id}  {found.create_time.ToJsonString()}  {found.language}".rstrip())
            return
        for file in client.ls(sandbox, path):
            link = f" -> {file.link_target}" if file.link_target else ""
            kind = _KINDS.get(file.kind, "?")
            click.echo(one_line(f"{kind}{'x' if file.executable else '-'} {file.size:>12} {file.name}{link}"))


@click.command()
@address_option
@click.argument("source", metavar="SANDBOX:PATH")
@click.argument("destination", default="", metavar="[DEST]")
def get(*, address: str, source: str, destination: str) -> None:
    """Download a file to DEST (a file, a directory, or "-" for stdout)."""
    sandbox, _, path = source.partition(":")
    name = PurePosixPath(path).name
    if not path or name in {"", ".", ".."}:
        raise click.UsageError("name a file: SANDBOX:PATH")
    with Client(address) as client:
        chunks = client.get(sandbox, path)
        if destination == "-":
            for chunk in chunks:
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return
        target = Path(destination or name)
        target = target / name if target.is_dir() else target
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
@click.argument("target", metavar="SANDBOX[:PATH]")
def rm(*, address: str, target: str) -> None:
    """Remove a sandbox with all its files, or one file or directory of it."""
    sandbox, colon, path = target.partition(":")
    if colon and not path:
        raise click.UsageError("nothing after ':'; name a PATH, or leave ':' out to remove the whole sandbox")
    with Client(address) as client:
        if path:
            client.rm(sandbox, path)
        else:
            client.remove_sandbox(sandbox)
