"""The `qila` command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qila.cli import changes, completion, execs, exits, files, forwarding, images, locks, mcp, plans, policies, services
from qila.cli.interaction import Interaction, interaction_options
from qila.cli.options import (
    ExecId,
    ImageName,
    address_option,
    echo_json,
    events_json_option,
    json_option,
    json_option_of,
    sandbox_argument,
)
from qila.cli.programs import ProgramOptions, lock_option, lockfile, program_options
from qila.cli.render import Renderer
from qila.cli.speech import Speech, report
from qila.cli.sync import sync
from qila.cli.upload import find_files
from qila.cli.watching import INTERRUPT_HELP, watch
from qila.client import Client, QilaError
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

_AS_IT_IS: Final = {"ignore_unknown_options": True}
_local = click.Path(path_type=Path)
_egress = click.option(
    "--egress",
    type=click.Choice(policies.OPENINGS),
    help="What it may reach: the package registries, those during installs alone, or nothing.",
)
_allow_hosts = click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="A further exact host, if the operator allows it; repeatable.",
)
_image = click.option(
    "--image", type=ImageName(), default="", metavar="NAME", help="The image to make it from; see 'qila images'."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="qila")
def cli() -> None:
    """Run code that nobody has read yet: Qila finds what it needs, installs it once, runs it behind a wall."""


_COMMANDS: Final = (
    *(*files.COMMANDS, sync, changes.watch),
    *(execs.execute, execs.shell, execs.attach, execs.execs, execs.send_signal, execs.cancel),
    *(forwarding.forward, forwarding.preview, images.images),
    *(locks.lock, locks.sbom, locks.diff, plans.plan, completion.completion, mcp.mcp),
    *(services.up, services.down, services.status),
)
for _command in _COMMANDS:
    cli.add_command(_command)


@cli.command(context_settings=_AS_IT_IS, epilog=f"{INTERRUPT_HELP} {exits.HELP}")
@address_option
@execs.quiet_option
@execs.env_option
@execs.timeout_option
@_egress
@_allow_hosts
@_image
@lock_option
@program_options
@interaction_options
@events_json_option
@click.option("--keep", is_flag=True, help="Do not remove the sandbox; its id is printed on stderr.")
@click.argument("source", type=_local, metavar="FILE|DIR")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def run(
    *,
    address: str,
    quiet: bool,
    env: tuple[str, ...],
    timeout: float | None,
    egress: str | None,
    hosts: tuple[str, ...],
    image: str,
    lock: Path | None,
    wanted: ProgramOptions,
    interaction: Interaction,
    as_json: bool,
    keep: bool,
    source: Path,
    args: tuple[str, ...],
) -> int:
    """Make a sandbox, upload a program, run it, stream its output. Options of its own stand after "--"."""
    interaction.check(as_json=as_json)
    if str(source).startswith("-"):
        raise click.UsageError(f"{source}: no such option; what is the program's stands behind FILE")
    renderer = Renderer(quiet=quiet, as_json=as_json)
    program = "" if source.is_dir() else source.name
    uploads = find_files(source, program, renderer.warn)
    variables = execs.variables(env)
    with Client(address) as client:
        sandbox = client.create(egress=policies.policy_of(egress, hosts), lock=lockfile(lock), image=image)
        renderer.say(f"sandbox {sandbox.id}", "dim")
        try:
            client.put_files(sandbox.id, uploads)
            what = wanted.program(program, args)
            options = {**wanted.request(), **interaction.request()}
            running = client.exec(sandbox.id, what, env=variables, run_seconds=timeout, **options)
            return watch(running, renderer, as_json=as_json, session=interaction.session(running))
        finally:
            if not keep:
                client.remove_sandbox(sandbox.id)


@cli.command()
@address_option
@click.option("--language", default="", help="Breaks ties only: the file and its manifest decide.")
@_egress
@_allow_hosts
@_image
@lock_option
@json_option
def create(
    *,
    address: str,
    language: str,
    egress: str | None,
    hosts: tuple[str, ...],
    image: str,
    lock: Path | None,
    as_json: bool,
) -> None:
    """Make a sandbox and print its id."""
    with Client(address) as client:
        policy = policies.policy_of(egress, hosts)
        made = client.create(language, egress=policy, lock=lockfile(lock), image=image)
    if as_json:
        echo_json(made)
    else:
        click.echo(made.id)


@cli.command()
@address_option
@_egress
@_allow_hosts
@json_option
@sandbox_argument
def policy(*, address: str, egress: str | None, hosts: tuple[str, ...], as_json: bool, sandbox: str) -> None:
    """Print the egress policy in force, or set it as a whole: --egress, and each --allow-host again."""
    if hosts and egress is None:
        raise click.UsageError("say --egress too: a policy is set as a whole")
    with Client(address) as client:
        if egress is None:
            found = client.sandbox(sandbox).egress
        else:
            found = client.set_egress_policy(sandbox, policies.policy_of(egress, hosts))
    if as_json:
        echo_json(found)
    else:
        click.echo(policies.describe(found))


@cli.command(name="egress")
@address_option
@click.option("--exec", "exec_id", type=ExecId(), default="", metavar="EXEC", help="Only what this exec asked for.")
@click.option("--follow", "-f", is_flag=True, help="Go on as decisions are made, until the sandbox is removed.")
@click.option("--refused", is_flag=True, help="Only what was refused.")
@json_option_of("Print every record as one line of JSON; errors too, on stderr.")
@sandbox_argument
def show_egress(*, address: str, exec_id: str, follow: bool, refused: bool, as_json: bool, sandbox: str) -> None:
    """Show what the doors decided about the requests of a sandbox, oldest first."""
    verdict = pb.EGRESS_VERDICT_REFUSED if refused else pb.EGRESS_VERDICT_UNSPECIFIED
    with Client(address) as client:
        for record in client.egress(sandbox, exec_id=exec_id, verdict=verdict, follow=follow):
            if as_json:
                echo_json(record)
            else:
                click.echo(policies.describe_record(record))


def main() -> None:
    """Run the command line; Qila's own errors exit 125."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: Sequence[str]) -> int:
    """Run one command line and answer its exit code."""
    speech = Speech()
    try:
        code = cli.main(args=list(arguments), prog_name="qila", standalone_mode=False, obj=speech)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
    except BrokenPipeError:
        # What is still buffered has no reader: Python must not try again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.BROKEN_PIPE
    except (click.ClickException, QilaError, OSError) as error:
        command = f"qila {arguments[0]}" if arguments and arguments[0] in cli.commands else "qila"
        report(error, as_json=speech.settle(arguments), command=command)
    except (click.Abort, KeyboardInterrupt):
        return exits.CANCELLED
    else:
        return code if isinstance(code, int) else 0
    return exits.QILA_FAILED


if __name__ == "__main__":
    main()
