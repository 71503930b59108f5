"""The commands that solve and install with uv, and the files they start from."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from services.resolver.model import StagedFile, Step, StepKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.resolver.python.manifests.requirements_file import Declared

# The sandbox's own door to the registry: an address inside the sandbox, the same in each.
INDEX = "http://127.0.0.1:7480/pypi/simple/"
ENVIRONMENTS = "/sandbox/.qila/env/python"
BYTECODE = "/sandbox/.qila/bytecode/python"
INVENTORY_PROGRAM = "/usr/lib/qila/python/inventory.py"
COMPILE_PROGRAM = "/usr/lib/qila/python/compile_bytecode.py"
PYTHON = "/usr/bin/python3"
REQUIREMENTS = "requirements.in"
CONSTRAINTS = "constraints.in"
LOCK = "requirements.lock"

ENVIRONMENT = MappingProxyType(
    {
        "NO_COLOR": "1",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_PYTHON_PREFERENCE": "only-system",
        # A read that stalls ends long before the install's deadline.
        "UV_HTTP_TIMEOUT": "60",
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class InstallCommands:
    """All commands around one environment, and the files that they start from; empty where nothing is installed."""

    staged: tuple[StagedFile, ...] = ()
    steps: tuple[Step, ...] = ()
    inventory_argv: tuple[str, ...] = ()
    compile_argv: tuple[str, ...] = ()


def install_commands(
    environment: str,
    *,
    requirements: Sequence[str],
    constraints: Sequence[str],
    locked: Sequence[Declared],
    previous_lock: bytes | None,
) -> InstallCommands:
    """Solve and install the requirements, or install what is locked already."""
    if not requirements:
        return InstallCommands()
    steps: tuple[Step, ...]
    if locked:
        staged, steps = locked_files(locked), (install_step(environment),)
    else:
        staged = staged_files(requirements, constraints, previous_lock)
        steps = (solve_step(constrained=bool(constraints)), install_step(environment))
    return InstallCommands(
        staged=staged,
        steps=steps,
        inventory_argv=(PYTHON, "-I", "-S", INVENTORY_PROGRAM, f"{environment}/lib"),
        compile_argv=(PYTHON, "-I", "-S", COMPILE_PROGRAM, f"{environment}/lib", bytecode_path(environment)),
    )


def environment_path(fingerprint: str) -> str:
    """Where the environment of a fingerprint lies in the sandbox."""
    return f"{ENVIRONMENTS}/{fingerprint}"


def bytecode_path(environment: str) -> str:
    """Where the compiled form of an environment lies."""
    return f"{BYTECODE}/{environment.rpartition('/')[2]}"


def staged_files(
    requirements: Sequence[str], constraints: Sequence[str], previous_lock: bytes | None
) -> tuple[StagedFile, ...]:
    """The inputs of the solve; a lock that is there already makes uv prefer its versions."""
    staged = [StagedFile(path=REQUIREMENTS, content=_lines(requirements))]
    if constraints:
        staged.append(StagedFile(path=CONSTRAINTS, content=_lines(constraints)))
    if previous_lock:
        staged.append(StagedFile(path=LOCK, content=previous_lock))
    return tuple(staged)


def locked_files(requirements: Sequence[Declared]) -> tuple[StagedFile, ...]:
    """A manifest that pins and hashes everything is its own lock."""
    lines = (f"{item.specifier} {' '.join(f'--hash={value}' for value in item.hashes)}" for item in requirements)
    return (StagedFile(path=LOCK, content=_lines(list(lines))),)


def solve_step(*, constrained: bool) -> Step:
    """Solve versions through the mirror into a lock with hashes."""
    argv = [
        "uv", "pip", "compile", "--no-config", "--no-sources", "--python", PYTHON, "--generate-hashes", "--no-header",
        "--default-index", INDEX, "--output-file", LOCK, REQUIREMENTS,
    ]  # fmt: skip
    if constrained:
        argv += ["--constraints", CONSTRAINTS]
    return Step(kind=StepKind.SOLVE, argv=tuple(argv), env=dict(ENVIRONMENT))


def install_step(environment: str) -> Step:
    """Install exactly the lock into the environment's own directory.

    Copies, not hard links: a file edited in one environment must not change the cache of the next.
    """
    argv = (
        "uv", "pip", "sync", "--no-config", "--python", PYTHON, "--target", f"{environment}/lib", "--require-hashes",
        "--link-mode", "copy", "--default-index", INDEX, LOCK,
    )  # fmt: skip
    return Step(kind=StepKind.INSTALL, argv=argv, env=dict(ENVIRONMENT))


def _lines(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
