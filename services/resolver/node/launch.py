"""The command that starts a program: Node itself, Node with a compiler of TypeScript, or npm for a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.resolver.model import Launch
from services.resolver.node.tsconfig import NAME as TSCONFIG
from services.resolver.paths import WORKSPACE, directories_above, join

if TYPE_CHECKING:
    from collections.abc import Collection

    from services.resolver.node.target import Run

NODE = "node"
# Loaded into the one process, where the `tsx` command would start a second.
TSX_LOADER = "/usr/lib/qila/tsx/dist/loader.mjs"
# What the sandbox's programs have, behind the commands of the environment's packages.
SYSTEM_PATH = "/sandbox/.local/bin:/usr/local/bin:/usr/bin:/bin"


def launch_of(run: Run, environment: str, tree: Collection[str]) -> Launch:
    """How the program starts. An empty environment is named too: it must not see an older one."""
    program, target = run.program, run.target
    variables = {"QILA_NODE_ENV": environment}
    if program.script or target.command:
        commands = f"{environment}/node_modules/.bin:" if environment else ""
        variables["PATH"] = f"{commands}{SYSTEM_PATH}"
    if target.command:
        return Launch(argv=target.command, env=variables)
    if program.script:
        # Silent: npm's own lines would stand between those of the program.
        argv = ("npm", "run", "--silent", "--", program.script, *target.args)
        return Launch(argv=argv, env=variables, working_directory=program.directory)
    if run.detection.tool is None:
        return Launch(argv=(NODE, _as_argument(program.path), *target.args), env=variables)
    config = next(
        (join(above, TSCONFIG) for above in directories_above(program.path) if join(above, TSCONFIG) in tree), ""
    )
    if config not in {"", TSCONFIG}:
        variables["TSX_TSCONFIG_PATH"] = join(WORKSPACE, config)
    return Launch(argv=(NODE, "--import", TSX_LOADER, _as_argument(program.path), *target.args), env=variables)


def _as_argument(path: str) -> str:
    return f"./{path}" if path.startswith("-") else path
