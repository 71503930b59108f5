"""How the command speaks beside its answer: errors, warnings and progress on stderr, in words or in JSON."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from qila.cli.render import one_line, printable
from qila.client import QilaError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Speech:
    """Of one command line. `as_json` is None as long as --json was not looked at."""

    as_json: bool | None = None

    def settle(self, arguments: Sequence[str]) -> bool:
        """Whether it speaks JSON; of a line that could not be parsed, whether it seems to ask for that."""
        if self.as_json is None:
            self.as_json = "--json" in arguments[: arguments.index("--") if "--" in arguments else None]
        return self.as_json


def remember_json(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:  # noqa: FBT001 - click's
    """Keeps for the errors of a command what it is told of its answers."""
    ctx.ensure_object(Speech).as_json = value
    return value


def tell(text: str) -> None:
    """A line of progress on stderr, for people alone."""
    if not _current().as_json:
        click.echo(printable(text), err=True)


def warn(text: str) -> None:
    """A line on stderr about what was left out or is not as it should be."""
    if _current().as_json:
        _echo({"warning": {"message": text}})
    else:
        click.echo(printable(text), err=True)


def report(error: Exception, *, as_json: bool, command: str = "qila") -> None:
    """One line on stderr: what failed, and what to do. `command` is what a wrong use is of."""
    document = _document(error, command)
    if as_json:
        _echo({"error": document})
        return
    reason = f" [{one_line(document['reason'])}]" if isinstance(error, QilaError) else ""
    click.echo(f"qila: {one_line(document['message'])}{reason}", err=True)


def _current() -> Speech:
    context = click.get_current_context(silent=True)
    return Speech() if context is None else context.ensure_object(Speech)


def _echo(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, ensure_ascii=False), err=True)


def _document(error: Exception, command: str) -> dict[str, Any]:
    """The error in the form that the HTTP door answers, too."""
    code, reason, metadata = "FAILED_PRECONDITION", "COMMAND_FAILED", {}
    message = str(error)
    if isinstance(error, QilaError):
        code, reason, metadata = error.code.name, error.reason, dict(error.metadata)
        if isinstance(error, UnavailableError):
            message = f"{_silence(error)}; 'qila status' shows the services, 'qila up' starts them"
    elif isinstance(error, click.UsageError):
        code, reason, message = "INVALID_ARGUMENT", "USAGE", _usage(error, command)
    elif isinstance(error, click.ClickException):
        message = error.format_message()
    elif isinstance(error, OSError):
        code, reason = "UNKNOWN", errno.errorcode.get(error.errno or 0, "OS_ERROR")
        message = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else message
    return {"code": code, "reason": reason, "message": message, "metadata": metadata}


def _silence(error: UnavailableError) -> str:
    """Without the words of gRPC, which tell where it looked in its own way."""
    if error.reason != error.code.name:
        return error.message
    return f"the gateway does not answer: {error.message.rpartition(': ')[2]}"


def _usage(error: click.UsageError, command: str) -> str:
    """What is wrong with the words, and where it stands how they must be."""
    command = error.ctx.command_path if error.ctx is not None else command
    words = one_line(error.format_message()).rstrip(".")
    return f"{words[:1].lower()}{words[1:]}; see '{command} --help'"
