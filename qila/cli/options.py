"""Options and arguments that several commands take, and how a command answers in JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from qila.cli.render import as_line
from qila.cli.speech import remember_json
from qila.client import Client, QilaError
from qila.client.client import DEFAULT_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.message import Message

_COMPLETION_SECONDS = 2.0

address_option = click.option(
    "--address",
    envvar="QILA_GATEWAY_ADDRESS",
    default=DEFAULT_ADDRESS,
    show_default=True,
    help="The gateway (QILA_GATEWAY_ADDRESS).",
)


def json_option_of(help_text: str, *, answers: bool = True) -> Callable[[Any], Any]:
    """The option --json of a command whose answer needs words of its own, or that has none and only tells errors."""
    return click.option(
        "--json",
        "as_json",
        is_flag=True,
        # What is wrong with the other words is told in JSON, too.
        is_eager=True,
        callback=remember_json,
        expose_value=answers,
        help=help_text,
    )


json_option = json_option_of("Answer in JSON, an object a line; errors too, on stderr.")
events_json_option = json_option_of("Print every event as one line of JSON on stdout; errors too, on stderr.")


def echo_json(answer: Message | dict[str, Any], *, err: bool = False) -> None:
    """One object on one line of stdout, or of stderr; fields are named as in the proto."""
    click.echo(json.dumps(answer, ensure_ascii=False) if isinstance(answer, dict) else as_line(answer), err=err)


class SandboxId(click.ParamType[str]):
    """A sandbox's id, which the shell completes."""

    name = "sandbox"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As it stands; commands that leave other words to the program would take a wrong option for one."""
        if str(value).startswith("-"):
            self.fail(f"no such option: {value}", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The ids of the gateway's sandboxes; none if it does not answer."""
        del param
        return _asked(ctx, incomplete, lambda client: (found.id for found in client.sandboxes()))


class SandboxOrFile(SandboxId):
    """A sandbox's id or a file of this machine, which the shell completes both."""

    name = "sandbox or file"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The ids of the sandboxes, and what the shell itself knows of files."""
        return [*super().shell_complete(ctx, param, incomplete), CompletionItem(incomplete, type="file")]


class ExecId(click.ParamType[str]):
    """An exec's id, which the shell completes."""

    name = "exec"

    def __init__(self, *, running_only: bool = False) -> None:
        self._running_only = running_only

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The ids of the sandbox's execs; none if the gateway does not answer."""
        del param
        sandbox = str(ctx.params.get("sandbox") or "")
        running_only = self._running_only
        return _asked(
            ctx, incomplete, lambda client: (x.id for x in client.list_execs(sandbox, running_only=running_only))
        )


class ImageName(click.ParamType[str]):
    """The name of an image, which the shell completes."""

    name = "image"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names of the images that the operator allows; none if the gateway does not answer."""
        del param
        return _asked(ctx, incomplete, lambda client: (image.name for image in client.images()))


def _asked(ctx: click.Context, incomplete: str, ask: Callable[[Client], Iterable[str]]) -> list[CompletionItem]:
    address = str(ctx.params.get("address") or DEFAULT_ADDRESS)
    try:
        with Client(address, call_seconds=_COMPLETION_SECONDS) as client:
            return [CompletionItem(found) for found in ask(client) if found.startswith(incomplete)]
    except QilaError:
        # A shell has no place for words.
        return []


sandbox_argument = click.argument("sandbox", type=SandboxId())
exec_argument = click.argument("exec_id", type=ExecId(running_only=True), metavar="EXEC")
recorded_exec_argument = click.argument("exec_id", type=ExecId(), default="", metavar="[EXEC]")
