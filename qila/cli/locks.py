"""The commands about what is installed: locks, SBOMs, comparisons."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console

from qila.cli import diffs
from qila.cli.options import (
    SandboxOrFile,
    address_option,
    echo_json,
    json_option_of,
    recorded_exec_argument,
    sandbox_argument,
)
from qila.cli.render import one_line, write_document
from qila.client import Client
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORMATS: Final = {"cyclonedx": pb.SBOM_FORMAT_CYCLONEDX_1_6, "spdx": pb.SBOM_FORMAT_SPDX_2_3}
_SANDBOX: Final = re.compile(r"(?P<sandbox>sb_[a-z2-7]{26})(:(?P<exec>.*))?")
_MAX_LOCK_BYTES: Final = 64 << 20
_SIDE: Final = "SANDBOX, SANDBOX:EXEC or a lock FILE"


@click.command()
@address_option
@click.option("--native", is_flag=True, help="Print the ecosystem's own lock: pylock.toml, package-lock.json, ...")
@click.option(
    "--project",
    default="",
    metavar="DIR",
    help="Of an exec with --install-all: print the lock of this project alone; '.' is the workspace itself.",
)
@click.option(
    "--language", default="", metavar="NAME", help="Where a project has several: the one whose lock is meant."
)
@json_option_of("Print the lock on one line; a native one as its name and content. Errors too, on stderr.")
@sandbox_argument
@recorded_exec_argument
def lock(*, address: str, native: bool, project: str, language: str, as_json: bool, sandbox: str, exec_id: str) -> None:
    """Print qila.lock.json of an exec, with all projects that it installed; by default of the newest that has one."""
    with Client(address) as client:
        answer = client.lock(sandbox, exec_id)
    found = _lock_of_project(answer, project, language) if project or language else answer
    if native and not found.native_lock:
        raise click.ClickException("this exec has no native lock")
    if not as_json:
        write_document(found.native_lock if native else found.lock)
    elif native:
        echo_json({"name": found.native_lock_name, "content": found.native_lock.decode("utf-8", "replace")})
    else:
        echo_json(json.loads(found.lock))


@click.command()
@address_option
@click.option("--format", "name", type=click.Choice(list(_FORMATS)), default="cyclonedx", show_default=True)
@json_option_of("Print the SBOM on one line; errors in JSON too, on stderr.")
@sandbox_argument
@recorded_exec_argument
def sbom(*, address: str, name: str, as_json: bool, sandbox: str, exec_id: str) -> None:
    """Print the SBOM of an exec as JSON (CycloneDX 1.6 or SPDX 2.3); by default of the newest that ran."""
    with Client(address) as client:
        found = client.sbom(sandbox, exec_id, _FORMATS[name])
    if as_json:
        echo_json(json.loads(found))
    else:
        write_document(found)


@click.command(epilog="Exit code: 0 nothing differs; 1 something does; 125 Qila failed, or a lock cannot be read.")
@address_option
@click.option(
    "--format",
    "name",
    type=click.Choice(["text", "json", "markdown"]),
    help="For people (text), for scripts, or for a review comment.",
)
@json_option_of("As --format json, on one line; errors too, on stderr.")
@click.argument("before", type=SandboxOrFile(), metavar="A")
@click.argument("after", type=SandboxOrFile(), metavar="B")
def diff(*, address: str, name: str | None, as_json: bool, before: str, after: str) -> int:
    """Compare what A and B have installed: packages added, removed, changed (version, hashes, licence).

    Each is a SANDBOX, a SANDBOX:EXEC, or a lock FILE: qila.lock.json or an ecosystem's own lock. Two files need no
    service. A file whose name looks like a sandbox's id is written ./NAME.
    """
    if as_json and name not in {None, "json"}:
        raise click.UsageError(f"--json and --format {name}: choose one")
    sides = [_reference(before), _reference(after)]
    if all(side.HasField("lock") for side in sides):
        found = _compare_here([(before, sides[0].lock), (after, sides[1].lock)])
    else:
        with Client(address) as client:
            found = client.diff(*sides)
    if as_json:
        echo_json(json.loads(diffs.as_json(found)))
    else:
        _show(found, name or "text")
    return 1 if found.changes else 0


def _lock_of_project(answer: pb.GetLockResponse, project: str, language: str) -> pb.ProjectLock:
    """The only one that is meant."""
    wanted = project.rstrip("/") or project
    found = [
        item
        for item in answer.projects
        if (not project or item.project == wanted) and (not language or item.ecosystem == language)
    ]
    if len(found) != 1:
        there = ", ".join(f"{item.project} ({item.ecosystem})" for item in answer.projects)
        reason = "several projects are meant" if found else "this exec has installed no such project"
        raise click.ClickException(one_line(f"{reason}; there is {there}" if there else reason))
    return found[0]


def _show(found: pb.DiffLocksResponse, name: str) -> None:
    if name == "json":
        click.echo(diffs.as_json(found))
    elif name == "markdown":
        click.echo(diffs.as_markdown(found), nl=False)
    else:
        console = Console(highlight=False, soft_wrap=True)
        for line in diffs.as_text(found):
            console.print(line)


def _reference(word: str) -> pb.LockReference:
    found = _SANDBOX.fullmatch(word)
    if found:
        if found["exec"] == "":
            raise click.UsageError(f"{word}: nothing after ':'; name an EXEC, or leave ':' out")
        reference = pb.ExecReference(sandbox_id=found["sandbox"], exec_id=found["exec"] or "")
        return pb.LockReference(exec=reference)
    path = Path(word)
    # A pipe is as good as a file: `qila diff <(git show HEAD:qila.lock.json) qila.lock.json`.
    if not path.exists() or path.is_dir():
        raise click.UsageError(f"{word}: no such file, and no sandbox's id; write {_SIDE}")
    with path.open("rb") as stream:
        content = stream.read(_MAX_LOCK_BYTES + 1)
    return pb.LockReference(lock=pb.Lockfile(name=path.name, content=content))


def _compare_here(sides: Sequence[tuple[str, pb.Lockfile]]) -> pb.DiffLocksResponse:
    """The comparison in this process, of two files by the words that name them."""
    # The resolver is a service's code: it is loaded for this alone.
    compare: Any = importlib.import_module("services.resolver.diff").diff_locks
    before, after = (_packages(word, lockfile) for word, lockfile in sides)
    found = compare(before, after)
    changes = [
        pb.PackageChange(before=_message(change.before), after=_message(change.after)) for change in found.changes
    ]
    return pb.DiffLocksResponse(changes=changes, unchanged_count=found.unchanged_count)


def _packages(word: str, lockfile: pb.Lockfile) -> list[Any]:
    errors: Any = importlib.import_module("services.resolver.errors")
    local: Any = importlib.import_module("services.resolver.local")
    locks: Any = importlib.import_module("services.resolver.locks")
    model: Any = importlib.import_module("services.resolver.model")
    given = model.Lockfile(name=lockfile.name, content=lockfile.content)
    try:
        packages: list[Any] = locks.read_all_locks([given], local.IMAGE_TOOLCHAIN)
    except errors.LockError as error:
        # Both files may have the same name, in two directories.
        error.name = word
        raise click.ClickException(one_line(str(error))) from error
    return packages


def _message(package: Any) -> pb.LockedPackage | None:
    if package is None:
        return None
    names = pb.LockedPackage.DESCRIPTOR.fields_by_name
    return pb.LockedPackage(**{name: getattr(package, name) for name in names})
