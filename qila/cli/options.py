"""Options and arguments that several commands take, and how a command answers in JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from qila.cli.render import as_line
from qila.client import Client, QilaError
from qila.client.client import DEFAULT_ADDRESS

if TYPE_CHECKING:
    from google.protobuf.message import Message

_COMPLETION_SECONDS = 2.0

address_option = click.option(
    "--address",
    envvar="QILA_GATEWAY_ADDRESS",
    default=DEFAULT_ADDRESS,
    show_default=True,
    help="The gateway (QILA_GATEWAY_ADDRESS).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print lines of JSON.")


def echo_json(answer: Message | dict[str, Any]) -> None:
    """One object on one line of stdout; fields are named as in the proto."""
    if isinstance(answer, dict):
        click.echo(json.dumps(answer))
    else:
        click.echo(as_line(answer))


class SandboxId(click.ParamType[str]):
    """A sandbox's id, which the shell completes."""

    name = "sandbox"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The ids of the gateway's sandboxes; none if it does not answer."""
        del param
        return _asked(ctx, incomplete, lambda client: [found.id for found in client.sandboxes()])


class ExecId(click.ParamType[str]):
    """An exec's id, which the shell completes."""

    name = "exec"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The ids of the sandbox's execs that run; none if the gateway does not answer."""
        del param
        sandbox = str(ctx.params.get("sandbox", ""))
        return _asked(ctx, incomplete, lambda client: [x.id for x in client.list_execs(sandbox, running_only=True)])


def _asked(ctx: click.Context, incomplete: str, ask: Any) -> list[CompletionItem]:
    address = str(ctx.params.get("address") or DEFAULT_ADDRESS)
    try:
        with Client(address, call_seconds=_COMPLETION_SECONDS) as client:
            return [CompletionItem(found) for found in ask(client) if found.startswith(incomplete)]
    except QilaError:
        # A shell has no place for words.
        return []


sandbox_argument = click.argument("sandbox", type=SandboxId())
exec_argument = click.argument("exec_id", type=ExecId(), metavar="EXEC")
