"""The commands about execs: start them, come back to them, steer them."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, Final

import click

from qila.cli import exits
from qila.cli.interaction import Interaction, interaction_options
from qila.cli.options import (
    address_option,
    echo_json,
    events_json_option,
    exec_argument,
    json_option,
    json_option_of,
    sandbox_argument,
)
from qila.cli.programs import ProgramOptions, program_options
from qila.cli.render import Renderer, describe_end, one_line
from qila.cli.terminal import ESCAPE_HELP, Session, terminal_size
from qila.cli.watching import INTERRUPT_HELP, watch
from qila.client import Client
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qila.client import Exec

# What stands behind SANDBOX is the program's: options of ours come before it.
_AS_IT_IS: Final = {"ignore_unknown_options": True, "allow_interspersed_args": False}
_SHELL_SECONDS: Final = 86_400
_SHELL: Final = ("bash",)
_PHASES: Final = {pb.PHASE_RESOLVE: "resolving", pb.PHASE_INSTALL: "installing", pb.PHASE_RUN: "running"}

quiet_option = click.option("--quiet", "-q", is_flag=True, help="Nothing but the program's own output, and errors.")
env_option = click.option(
    "--env", "-e", multiple=True, metavar="NAME=VALUE", help="A variable of the program; repeatable."
)
timeout_option = click.option(
    "--timeout", type=click.FloatRange(min=0.001, max=86_400), help="Seconds the run may take."
)


@click.command(name="exec", context_settings=_AS_IT_IS, epilog=f"{INTERRUPT_HELP} {exits.HELP}")
@address_option
@quiet_option
@env_option
@timeout_option
@program_options
@interaction_options
@click.option("--workdir", "-w", default="", metavar="DIR", help="Where it starts, relative to the workspace.")
@click.option("--detach", "-d", is_flag=True, help="Print the exec's id and leave it running.")
@click.option("--exec-id", default="", help="ex_ and 26 of [a-z2-7]; the same id and request joins a running exec.")
@events_json_option
@sandbox_argument
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="FILE [ARGS...] | -- CMD [ARGS...]")
def execute(
    *,
    address: str,
    quiet: bool,
    env: tuple[str, ...],
    timeout: float | None,
    wanted: ProgramOptions,
    interaction: Interaction,
    workdir: str,
    detach: bool,
    exec_id: str,
    as_json: bool,
    sandbox: str,
    words: tuple[str, ...],
) -> int:
    """Run a program of the workspace, with what it needs installed; or, after "--", a command as it is.

    Options stand before SANDBOX: what follows is the program's.
    """
    interaction.check(as_json=as_json)
    what = _what(wanted, words, workdir)
    with Client(address) as client:
        run = client.exec(
            sandbox,
            what,
            exec_id=exec_id,
            env=variables(env),
            run_seconds=timeout,
            detach=detach,
            **interaction.request(),
            **wanted.request(),
        )
        if detach:
            return _tell_detached(run, as_json=as_json)
        session = interaction.session(run)
        return watch(run, Renderer(quiet=quiet, as_json=as_json), as_json=as_json, session=session)


def _what(wanted: ProgramOptions, words: Sequence[str], workdir: str) -> pb.Program | pb.Command:
    if words[:1] == ("--",):
        if not words[1:]:
            raise click.UsageError("name a command after --")
        return pb.Command(argv=words[1:], working_directory=workdir)
    if not words and not wanted.names_program:
        raise click.UsageError("name a FILE, a --module, a --script, or a command after --")
    if not wanted.names_program and words[0].startswith("-"):
        raise click.UsageError(f"{words[0]}: options stand before SANDBOX")
    file, args = ("", words) if wanted.names_program else (words[0], words[1:])
    program = wanted.program(file, args)
    program.working_directory = workdir
    return program


def _tell_detached(run: Exec, *, as_json: bool) -> int:
    run.start()
    if as_json:
        echo_json({"sandbox_id": run.sandbox_id, "exec_id": run.exec_id})
    else:
        click.echo(run.exec_id)
    return 0


@click.command(context_settings=_AS_IT_IS, epilog=f"{ESCAPE_HELP} {exits.HELP}")
@address_option
@env_option
@click.option("--workdir", "-w", default="", metavar="DIR", help="Where it starts, relative to the workspace.")
@json_option_of("Tell on stderr, as a line of JSON, which exec it was and how it ended; errors too.")
@sandbox_argument
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[CMD [ARGS...]]")
def shell(
    *, address: str, env: tuple[str, ...], workdir: str, as_json: bool, sandbox: str, words: tuple[str, ...]
) -> int:
    """Open a shell in a sandbox, or CMD, on a terminal of its own; what is typed goes there, Ctrl-C too.

    It may run for a day.
    """
    argv = words[1:] if words[:1] == ("--",) else words
    what = pb.Command(argv=argv or _SHELL, working_directory=workdir)
    with Client(address) as client:
        run = client.exec(
            sandbox,
            what,
            env={"TERM": os.environ.get("TERM") or "xterm", **variables(env)},
            run_seconds=_SHELL_SECONDS,
            terminal=terminal_size(),
        )
        code = watch(run, Renderer(quiet=True, as_json=as_json), session=Session(run, has_terminal=True))
        if as_json:
            # The terminal is stdout's.
            echo_json(_left(run), err=True)
        return code


def _left(run: Exec) -> pb.Exec:
    """What a terminal leaves behind: an exec that has ended, or runs on."""
    return pb.Exec(id=run.exec_id, sandbox_id=run.sandbox_id, phase=pb.PHASE_RUN, ended=run.ended)


@click.command(epilog=f"Ctrl-C ends the watching, not the exec. With --tty: {ESCAPE_HELP} {exits.HELP}")
@address_option
@quiet_option
@click.option("--stdin", "-i", is_flag=True, help="Write to its input, if it was started with one.")
@click.option("--tty", "-t", is_flag=True, help="Lend it this terminal, if it was started with one.")
@events_json_option
@sandbox_argument
@exec_argument
def attach(*, address: str, quiet: bool, stdin: bool, tty: bool, as_json: bool, sandbox: str, exec_id: str) -> int:
    """Come back to an exec: show all that it wrote, and what it writes, to its end."""
    if tty and as_json:
        raise click.UsageError("--tty and --json: a terminal shows no JSON")
    with Client(address) as client:
        run = client.attach(sandbox, exec_id)
        session = Session(run, has_terminal=tty) if stdin or tty else None
        return watch(run, Renderer(quiet=quiet, as_json=as_json), as_json=as_json, session=session, cancels=False)


@click.command()
@address_option
@json_option
@click.option("--running", is_flag=True, help="Only those that have not ended.")
@sandbox_argument
def execs(*, address: str, as_json: bool, running: bool, sandbox: str) -> None:
    """List a sandbox's execs, newest first."""
    with Client(address) as client:
        for found in client.list_execs(sandbox, running_only=running):
            if as_json:
                echo_json(found)
            else:
                click.echo(f"{found.id}  {found.create_time.ToJsonString()}  {_state(found)}")


def _state(found: pb.Exec) -> str:
    if not found.HasField("ended"):
        return _PHASES.get(found.phase, "begun")
    if found.ended.HasField("exited"):
        return f"exited {found.ended.exited}"
    return one_line(describe_end(found.ended))


class _Signal(click.ParamType[int]):
    """A signal by its name, with or without SIG, or its number."""

    name = "signal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Its number, 1 to 31."""
        word = str(value).upper()
        try:
            number = int(word) if word.isdecimal() else signal.Signals[f"SIG{word.removeprefix('SIG')}"].value
        except KeyError:
            number = 0
        if not 1 <= number <= 31:  # noqa: PLR2004 - the signals that every Linux has
            self.fail(f"{value}: no such signal; write INT, SIGTERM, 9, …", param, ctx)
        return number


@click.command(name="signal")
@address_option
@json_option
@sandbox_argument
@exec_argument
@click.argument("number", type=_Signal(), metavar="SIGNAL")
def send_signal(*, address: str, as_json: bool, sandbox: str, exec_id: str, number: int) -> None:
    """Send a signal (INT, SIGTERM, 9, …) to an exec's process group."""
    with Client(address) as client:
        client.signal(sandbox, exec_id, number)
    if as_json:
        echo_json({"sandbox_id": sandbox, "exec_id": exec_id, "signal": number})


@click.command()
@address_option
@json_option
@sandbox_argument
@exec_argument
def cancel(*, address: str, as_json: bool, sandbox: str, exec_id: str) -> None:
    """Kill all that an exec started; one that has ended is fine."""
    with Client(address) as client:
        client.cancel(sandbox, exec_id)
    if as_json:
        echo_json({"sandbox_id": sandbox, "exec_id": exec_id})


def variables(pairs: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE pairs as a mapping. UsageError for another form."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.UsageError(f"--env {pair}: write NAME=VALUE")
        found[name] = value
    return found
