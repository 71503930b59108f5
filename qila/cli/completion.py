"""`qila completion`: what a shell needs to complete the command's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_QILA_COMPLETE"


@click.command(
    epilog="""bash: eval "$(qila completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc, after compinit;
    fish: qila completion fish > ~/.config/fish/completions/qila.fish"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the completion of a shell; it completes commands, options, and ids of sandboxes and execs."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "qila", _VARIABLE).source())
