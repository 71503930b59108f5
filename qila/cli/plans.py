"""`qila plan`: what the resolver would do, without any service."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qila.cli.render import describe_missing, one_line, printable
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from services.resolver.model import ImportFinding, Plan


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The whole plan as JSON.")
@click.argument("source", type=click.Path(exists=True, path_type=Path), metavar="FILE|DIR")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def plan(*, as_json: bool, source: Path, args: tuple[str, ...]) -> None:
    """Say what would be installed, why, and how it would be launched. Needs no service."""
    # The resolver is a service's code: it is loaded for this command alone.
    local = importlib.import_module("services.resolver.local")
    core = importlib.import_module("services.resolver.plan")
    errors = importlib.import_module("services.resolver.errors")
    model = importlib.import_module("services.resolver.model")
    wire = importlib.import_module("services.resolver.wire")
    try:
        planned, selection = local.plan_local(source, args, model.Context(toolchain=local.IMAGE_TOOLCHAIN))
    except errors.ResolverError as error:
        raise click.ClickException(printable(str(error))) from error
    for problem in selection.problems:
        text = f"{one_line(problem.path)}: {problem.kind}, not read ({problem.count} in all, limit {problem.limit})"
        click.echo(text, err=True)
    if as_json:
        click.echo(core.plan_to_json(planned))
        return
    notices = [f"{item.path}:{item.line}: {wire.notice_message(item).message}" for item in planned.notices]
    click.echo(describe_plan(planned, notices))


def describe_plan(planned: Plan, notices: list[str]) -> str:
    """A plan for people: requirements with their origins, what is missing, what to know, the launch command."""
    lines = [f"{planned.ecosystem}, requirements: {planned.source.value}"]
    for requirement in planned.requirements:
        lines.append(f"  needs {requirement.specifier}")
        lines += [f"    {origin.path}:{origin.line} {origin.module}".rstrip() for origin in requirement.origins]
    lines += [f"  {describe_missing(_message(found))}" for found in (*planned.undeclared, *planned.unknown)]
    lines += [f"  {notice}" for notice in notices]
    return "\n".join(one_line(line) for line in [*lines, f"launch: {' '.join(planned.launch.argv)}"])


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
