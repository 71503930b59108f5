"""What `run` and `exec` can say about a program beside its name: how it is named, and what is installed for it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, kw_only=True)
class ProgramOptions:
    """The options of one call."""

    module: str
    script: str
    launch: tuple[str, ...]
    install_missing: bool
    no_detect: bool
    extras: tuple[str, ...]
    groups: tuple[str, ...]
    install_all: bool
    language: str

    @property
    def names_program(self) -> bool:
        """Whether they name the program, so that no file does."""
        return bool(self.module or self.script)

    def program(self, file: str, args: Sequence[str]) -> pb.Program:
        """What is to be run: the module or the script that the options name, else the file."""
        file = "" if self.names_program else file
        return pb.Program(
            file=file,
            module=self.module,
            script=self.script,
            command=self.launch,
            args=args,
            language=self.language,
        )

    def request(self) -> dict[str, Any]:
        """What `Client.exec` takes of them."""
        return {
            "install_missing": self.install_missing,
            "no_detection": self.no_detect,
            "extras": self.extras,
            "groups": self.groups,
            "install_all": self.install_all,
        }


def _words(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise click.BadParameter(f"{text}: {error}") from error


_OPTIONS = (
    click.option("--module", "-m", default="", metavar="MODULE", help="Run a module, as python -m does."),
    click.option("--script", default="", metavar="NAME", help="Run a script of the manifest, as npm run does."),
    click.option(
        "--launch",
        default="",
        metavar="COMMAND",
        callback=_words,
        help="""Launch the program with this command, and the ARGS, in place of Qila's own; what it needs is installed
        all the same. Words are as in a shell, but nothing is expanded: --launch "python -X dev main.py".""",
    ),
    click.option(
        "--install-missing",
        is_flag=True,
        help="Install what is imported and was not declared; after an import that failed, run again with it.",
    ),
    click.option("--no-detect", is_flag=True, help="Install nothing that no manifest or lock names."),
    click.option(
        "--install-all",
        is_flag=True,
        help="Install every project of the workspace that has a manifest too, of every language.",
    ),
    click.option(
        "--language",
        default="",
        metavar="NAME",
        help="The language that runs it, where several could: python, node, go or java.",
    ),
    click.option("--extra", "extras", multiple=True, metavar="NAME", help="An extra of the manifest; repeatable."),
    click.option("--group", "groups", multiple=True, metavar="NAME", help="A dependency group; repeatable."),
)


def program_options(command: Callable[..., int]) -> Callable[..., int]:
    """Gives the command these options, as its one argument `wanted`."""

    @wraps(command)
    def with_options(
        *,
        module: str,
        script: str,
        launch: tuple[str, ...],
        install_missing: bool,
        no_detect: bool,
        extras: tuple[str, ...],
        groups: tuple[str, ...],
        install_all: bool,
        language: str,
        **others: Any,
    ) -> int:
        wanted = ProgramOptions(
            module=module,
            script=script,
            launch=launch,
            install_missing=install_missing,
            no_detect=no_detect,
            extras=extras,
            groups=groups,
            install_all=install_all,
            language=language,
        )
        return command(wanted=wanted, **others)

    for option in reversed(_OPTIONS):
        with_options = option(with_options)
    return with_options


lock_option = click.option(
    "--lock",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Install exactly what this lockfile says: qila.lock.json, or an ecosystem's own.",
)


def lockfile(path: Path | None) -> pb.Lockfile | None:
    """The lockfile as a message; OSError if it cannot be read."""
    return None if path is None else pb.Lockfile(name=path.name, content=path.read_bytes())
