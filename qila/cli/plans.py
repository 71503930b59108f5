"""`qila plan`: what the resolver would do, without any service."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qila.cli.options import json_option_of
from qila.cli.render import describe_missing, one_line, printable
from qila.cli.speech import warn
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from services.resolver.model import ImportFinding, Plan


@click.command()
@json_option_of("Print every plan as one line of JSON; errors too, on stderr.")
@click.option(
    "--all", "everything", is_flag=True, help="Plan every project of a DIR too, as --install-all installs them."
)
@click.option("--language", default="", help="The language that runs it, where several could.")
@click.argument("source", type=click.Path(exists=True, path_type=Path), metavar="FILE|DIR")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def plan(*, as_json: bool, everything: bool, language: str, source: Path, args: tuple[str, ...]) -> None:
    """Say what would be installed, why, and how it would be launched. Needs no service."""
    # The resolver is a service's code: it is loaded for this command alone.
    local = importlib.import_module("services.resolver.local")
    core = importlib.import_module("services.resolver.plan")
    errors = importlib.import_module("services.resolver.errors")
    model = importlib.import_module("services.resolver.model")
    wire = importlib.import_module("services.resolver.wire")
    if everything and not source.is_dir():
        raise click.UsageError("--all is for a DIR: what lies beside a FILE does not exist for its run")
    context = model.Context(toolchain=local.IMAGE_TOOLCHAIN)
    plans: tuple[Plan, ...]
    try:
        if everything:
            plans, selection = local.plan_local_projects(source, args, context, language)
        else:
            planned, selection = local.plan_local(source, args, context, language)
            plans = (planned,)
    except errors.ResolverError as error:
        raise click.ClickException(printable(str(error))) from error
    for problem in selection.problems:
        text = f"{one_line(problem.path)}: {problem.kind}, not read ({problem.count} in all, limit {problem.limit})"
        warn(text)
    for planned in plans:
        if as_json:
            click.echo(core.plan_to_json(planned))
            continue
        notices = [f"{item.path}:{item.line}: {wire.notice_message(item).message}" for item in planned.notices]
        click.echo(describe_plan(planned, notices))


def describe_plan(planned: Plan, notices: list[str]) -> str:
    """A plan for people: requirements with their origins, what is missing, what to know, the launch command if any."""
    place = f" in {planned.project}" if planned.project else ""
    lines = [f"{planned.ecosystem}{place}, requirements: {planned.source.value}"]
    for requirement in planned.requirements:
        lines.append(f"  needs {requirement.specifier}")
        lines += [f"    {origin.path}:{origin.line} {origin.module}".rstrip() for origin in requirement.origins]
    lines += [f"  {describe_missing(_message(found))}" for found in (*planned.undeclared, *planned.unknown)]
    lines += [f"  {notice}" for notice in notices]
    launch = [f"launch: {' '.join(planned.launch.argv)}"] if planned.launch.argv else []
    return "\n".join(one_line(line) for line in [*lines, *launch])


def _message(found: ImportFinding) -> pb.MissingImport:
    """The finding as execs tell it, so that both are worded alike."""
    return pb.MissingImport(
        module=found.module,
        path=found.path,
        line=found.line,
        suggestion=found.suggestion,
        manifest=found.manifest,
        declaration=found.declaration,
        note=found.note,
    )
