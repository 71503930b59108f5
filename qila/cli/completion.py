"""`qila completion`: what a shell needs to complete the command's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from qila.cli.options import echo_json, json_option

_VARIABLE = "_QILA_COMPLETE"


@click.command(
    epilog="""bash: eval "$(qila completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc, after compinit;
    fish: qila completion fish > ~/.config/fish/completions/qila.fish"""
)
@json_option
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, *, as_json: bool, shell: str) -> None:
    """Print the completion of a shell; it completes commands, options, and ids of sandboxes and execs."""
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "qila", _VARIABLE).source()
    if as_json:
        echo_json({"shell": shell, "script": script})
    else:
        click.echo(script)
