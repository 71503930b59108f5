"""The `qila` command."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from google.protobuf.json_format import MessageToJson

from qila.cli import exits, files, forwarding, images, locks, plans, policies, stack
from qila.cli.options import address_option
from qila.cli.programs import ProgramOptions, lock_option, lockfile, program_options
from qila.cli.render import Renderer, printable
from qila.cli.upload import find_files, send
from qila.client import Client, QilaError, UnavailableError
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qila.client import ExecStream

_AS_IT_IS: Final = {"ignore_unknown_options": True}
_quiet = click.option("--quiet", "-q", is_flag=True, help="Nothing but the program's own output, and errors.")
_env = click.option("--env", "-e", multiple=True, metavar="NAME=VALUE", help="A variable of the program; repeatable.")
_timeout = click.option("--timeout", type=click.FloatRange(min=0.001, max=86_400), help="Seconds the run may take.")
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
_image = click.option("--image", default="", metavar="NAME", help="The image to make it from; see 'qila images'.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="qila")
def cli() -> None:
    """Run code that nobody has read yet: Qila finds what it needs, installs it once, runs it behind a wall."""


for _command in (
    files.put,
    files.ls,
    files.get,
    files.rm,
    locks.lock,
    locks.sbom,
    locks.diff,
    plans.plan,
    forwarding.forward,
    forwarding.preview,
    images.images,
):
    cli.add_command(_command)


@cli.command(context_settings=_AS_IT_IS, epilog=exits.HELP)
@address_option
@_quiet
@_env
@_timeout
@_egress
@_allow_hosts
@_image
@lock_option
@program_options
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
    keep: bool,
    source: Path,
    args: tuple[str, ...],
) -> int:
    """Make a sandbox, upload a program, run it, stream its output. Ctrl-C cancels it."""
    renderer = Renderer(quiet=quiet)
    program = "" if source.is_dir() else source.name
    uploads = find_files(source, program, renderer.warn)
    variables = _variables(env)
    with Client(address) as client:
        sandbox = client.create(egress=policies.policy_of(egress, hosts), lock=lockfile(lock), image=image)
        renderer.say(f"sandbox {sandbox.id}", "dim")
        try:
            send(client, sandbox.id, uploads)
            what = wanted.program(program, args)
            stream = client.exec(sandbox.id, what, env=variables, run_seconds=timeout, **wanted.request())
            return _watch(client, stream, renderer)
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
def create(
    *, address: str, language: str, egress: str | None, hosts: tuple[str, ...], image: str, lock: Path | None
) -> None:
    """Make a sandbox and print its id."""
    with Client(address) as client:
        policy = policies.policy_of(egress, hosts)
        click.echo(client.create(language, egress=policy, lock=lockfile(lock), image=image).id)


@cli.command()
@address_option
@_egress
@_allow_hosts
@click.argument("sandbox")
def policy(*, address: str, egress: str | None, hosts: tuple[str, ...], sandbox: str) -> None:
    """Print the egress policy in force, or set it as a whole: --egress, and each --allow-host again."""
    if hosts and egress is None:
        raise click.UsageError("say --egress too: a policy is set as a whole")
    with Client(address) as client:
        if egress is None:
            found = client.sandbox(sandbox).egress
        else:
            found = client.set_egress_policy(sandbox, policies.policy_of(egress, hosts))
        click.echo(policies.describe(found))


@cli.command(name="egress")
@address_option
@click.option("--exec", "exec_id", default="", metavar="EXEC", help="Only what this exec asked for.")
@click.option("--follow", "-f", is_flag=True, help="Go on as decisions are made, until the sandbox is removed.")
@click.option("--refused", is_flag=True, help="Only what was refused.")
@click.option("--json", "as_json", is_flag=True, help="Print every record as one line of JSON.")
@click.argument("sandbox")
def show_egress(*, address: str, exec_id: str, follow: bool, refused: bool, as_json: bool, sandbox: str) -> None:
    """Show what the doors decided about the requests of a sandbox, oldest first."""
    verdict = pb.EGRESS_VERDICT_REFUSED if refused else pb.EGRESS_VERDICT_UNSPECIFIED
    with Client(address) as client:
        for record in client.egress(sandbox, exec_id=exec_id, verdict=verdict, follow=follow):
            if as_json:
                click.echo(MessageToJson(record, indent=None, preserving_proto_field_name=True))
            else:
                click.echo(policies.describe_record(record))


@cli.command(name="exec", context_settings=_AS_IT_IS, epilog=exits.HELP)
@address_option
@_quiet
@_env
@_timeout
@program_options
@click.option("--exec-id", default="", help="ex_ and 26 of [a-z2-7]; the same id and request joins a running exec.")
@click.option("--json", "as_json", is_flag=True, help="Print every event as one line of JSON on stdout.")
@click.argument("sandbox")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="FILE [ARGS...] | -- CMD [ARGS...]")
def execute(
    *,
    address: str,
    quiet: bool,
    env: tuple[str, ...],
    timeout: float | None,
    wanted: ProgramOptions,
    exec_id: str,
    as_json: bool,
    sandbox: str,
    words: tuple[str, ...],
) -> int:
    """Run a program of the workspace, with what it needs installed; or, after "--", a command as it is."""
    what: pb.Program | pb.Command
    if not words and not wanted.names_program:
        raise click.UsageError("name a FILE, a --module, a --script, or a command after --")
    if words[:1] == (_COMMAND_MARK,):
        if not words[1:]:
            raise click.UsageError("name a command after --")
        what = pb.Command(argv=words[1:])
    else:
        file, args = ("", words) if wanted.names_program else (words[0], words[1:])
        what = wanted.program(file, args)
    with Client(address) as client:
        variables = _variables(env)
        stream = client.exec(sandbox, what, exec_id=exec_id, env=variables, run_seconds=timeout, **wanted.request())
        return _watch(client, stream, Renderer(quiet=quiet), as_json=as_json)


@cli.command()
@address_option
def up(*, address: str) -> None:
    """Start resolver, executor and gateway on this machine."""
    stack.up(stack.stack_from(os.environ, address), _say)
    _say(f"Qila answers at {address}")


@cli.command()
@address_option
def down(*, address: str) -> None:
    """Stop the services that `qila up` started. Sandboxes stay."""
    stack.down(stack.stack_from(os.environ, address), _say)


@cli.command()
@address_option
def status(*, address: str) -> int:
    """Show the health of each service, how workspaces are bounded, and what is free; exit code 1 if one is silent."""
    services = stack.stack_from(os.environ, address)
    failed = 0
    for name in stack.NAMES:
        process = stack.running(services, name)
        answers = stack.healthy(services, name)
        failed += not answers
        where = f"process {process.pid}" if process else "not started by this installation"
        click.echo(f"{name:9} {'healthy' if answers else 'does not answer'} ({where}, {services.address_of(name)})")
    storage = stack.storage(services)
    if storage is not None:
        click.echo(printable("\n".join(stack.describe_storage(storage))))
    return 1 if failed else 0


_COMMAND_MARK: Final = "\0command"


def main() -> None:
    """Run the command line; Qila's own errors exit 125."""
    sys.exit(call(sys.argv[1:]))


def call(arguments: Sequence[str]) -> int:
    """Run one command line and answer its exit code."""
    try:
        code = cli.main(args=_marked(list(arguments)), prog_name="qila", standalone_mode=False)
    except click.ClickException as error:
        error.show()
    except QilaError as error:
        hint = (
            "; 'qila status' shows the services, 'qila up' starts them" if isinstance(error, UnavailableError) else ""
        )
        click.echo(f"qila: {printable(str(error))} [{printable(error.reason)}]{hint}", err=True)
    except BrokenPipeError:
        # What is still buffered has no reader: Python must not try again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.BROKEN_PIPE
    except OSError as error:
        click.echo(f"qila: {error}", err=True)
    except (click.Abort, KeyboardInterrupt):
        return exits.CANCELLED
    else:
        return code if isinstance(code, int) else 0
    return exits.QILA_FAILED


def _marked(arguments: list[str]) -> list[str]:
    """Click drops "--", which tells a command from a program in `exec SANDBOX -- CMD`: a mark stands for it."""
    if arguments[:1] == ["exec"] and "--" in arguments:
        at = arguments.index("--")
        return [*arguments[:at], "--", _COMMAND_MARK, *arguments[at + 1 :]]
    return arguments


def _watch(client: Client, stream: ExecStream, renderer: Renderer, *, as_json: bool = False) -> int:
    """Shows an exec to its end and answers its exit code. An interrupt cancels it and waits for its end."""
    # SIGTERM is as good a reason to clean up as Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        try:
            return _show(stream, renderer, as_json=as_json)
        except KeyboardInterrupt:
            renderer.say("cancelling", "yellow")
            client.cancel(stream.sandbox_id, stream.exec_id)
            return _show(stream, renderer, as_json=as_json)
        except BrokenPipeError:
            with suppress(QilaError):
                client.cancel(stream.sandbox_id, stream.exec_id)
            raise
    finally:
        renderer.close()
        signal.signal(signal.SIGTERM, before)


def _show(stream: ExecStream, renderer: Renderer, *, as_json: bool) -> int:
    for event in stream:
        if as_json:
            click.echo(MessageToJson(event, indent=None, preserving_proto_field_name=True))
        else:
            renderer.show(event)
        if event.HasField("ended"):
            return exits.exit_code(event.ended)
    return exits.QILA_FAILED


def _variables(pairs: Sequence[str]) -> dict[str, str]:
    variables = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.UsageError(f"--env {pair}: write NAME=VALUE")
        variables[name] = value
    return variables


def _say(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    main()
