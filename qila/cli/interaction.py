"""What `run` and `exec` can say about a program's input, terminal and output."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from qila.cli.terminal import Session, terminal_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from qila.client import Exec


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """The options of one call."""

    stdin: bool
    tty: bool
    merge_output: bool
    idle_timeout: float | None

    def check(self, *, as_json: bool) -> None:
        """UsageError for what does not go together."""
        if self.tty and as_json:
            raise click.UsageError("--tty and --json: a terminal shows no JSON")

    def request(self) -> dict[str, Any]:
        """What `Client.exec` takes of them."""
        return {
            "stdin": self.stdin and not self.tty,
            "terminal": terminal_size() if self.tty else None,
            "merge_output": self.merge_output,
            "idle_seconds": self.idle_timeout,
        }

    def session(self, run: Exec) -> Session | None:
        """What feeds the exec; None if nothing does."""
        return Session(run, has_terminal=self.tty) if self.stdin or self.tty else None


_OPTIONS = (
    click.option("--stdin", "-i", is_flag=True, help="The program reads this command's input; empty without."),
    click.option("--tty", "-t", is_flag=True, help="The program has a terminal: this one, and its keys."),
    click.option("--merge-output", is_flag=True, help="stderr goes where stdout goes, in the order of the writes."),
    click.option(
        "--idle-timeout",
        type=click.FloatRange(min=1, max=86_400),
        metavar="SECONDS",
        help="Ends a run that neither writes nor is written to for that long.",
    ),
)


def interaction_options(command: Callable[..., int]) -> Callable[..., int]:
    """Gives the command these options, as its one argument `interaction`."""

    @wraps(command)
    def with_options(*, stdin: bool, tty: bool, merge_output: bool, idle_timeout: float | None, **others: Any) -> int:
        made = Interaction(stdin=stdin, tty=tty, merge_output=merge_output, idle_timeout=idle_timeout)
        return command(interaction=made, **others)

    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return with_options
