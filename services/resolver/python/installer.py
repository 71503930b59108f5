"""The commands that solve and install with uv, and the files they start from."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from services.resolver.install import InstallCommands
from services.resolver.model import StagedFile, Step, StepKind
from services.resolver.python.native_pylock import preferences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.resolver.python.manifests.requirements_file import Declared
    from services.resolver.python.native_pylock import Pin

# The sandbox's own door to the registry: an address inside the sandbox, the same in each.
INDEX = "http://127.0.0.1:7480/pypi/simple/"
BYTECODE = "/sandbox/.qila/bytecode/python"
INVENTORY_PROGRAM = "/usr/lib/qila/python/inventory.py"
COMPILE_PROGRAM = "/usr/lib/qila/python/compile_bytecode.py"
PYTHON = "/usr/bin/python3"
REQUIREMENTS = "requirements.in"
CONSTRAINTS = "constraints.in"
# The lock that a solve yields, and the one that an author wrote: hashed requirements.
LOCK = "pylock.toml"
AUTHORS_LOCK = "requirements.lock"
# uv prints the lock as well as writing it; what it says of its progress goes to stderr.
QUIETLY = ("/bin/sh", "-c", 'exec "$@" >/dev/null', "uv")

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
class Wanted:
    """What is to be installed.

    `locked` is set where the author's manifest is a lock; `added` are the requirements beyond it. `preferred` holds the
    pins of the last install. Without `builds`, only wheels are installed, so that no package's own code runs.
    """

    requirements: Sequence[str]
    constraints: Sequence[str] = ()
    locked: Sequence[Declared] = ()
    added: Sequence[str] = ()
    preferred: Sequence[Pin] = ()
    builds: bool = True


def install_commands(environment: str, wanted: Wanted) -> InstallCommands:
    """Solve and install the requirements, or install what is locked already."""
    if not wanted.requirements:
        return InstallCommands()
    library = f"{environment}/lib"
    solved = bool(wanted.added or not wanted.locked)
    steps: list[Step] = []
    if solved:
        steps.append(_solve_step(wanted))
    if wanted.locked:
        steps.append(_locked_step(library, wanted))
    if solved:
        steps.append(_install_step(library, wanted))
    return InstallCommands(
        staged=_staged_files(wanted),
        steps=tuple(steps),
        native_lock=LOCK if solved else AUTHORS_LOCK,
        native_lock_staged=not solved,
        inventory_argv=inventory_command(library),
        compile_argv=(PYTHON, "-I", "-S", COMPILE_PROGRAM, library, bytecode_path(environment)),
    )


def inventory_command(library: str) -> tuple[str, ...]:
    """Lists the packages of a directory as JSON."""
    return (PYTHON, "-I", "-S", INVENTORY_PROGRAM, library)


def bytecode_path(environment: str) -> str:
    """Where the compiled form of an environment lies."""
    return f"{BYTECODE}/{environment.rpartition('/')[2]}"


def _staged_files(wanted: Wanted) -> tuple[StagedFile, ...]:
    """What the steps read. An author's lock alone is not solved; versions of the last install are preferred."""
    staged = []
    if wanted.added or not wanted.locked:
        staged.append(StagedFile(path=REQUIREMENTS, content=_lines(wanted.requirements)))
        if wanted.constraints:
            staged.append(StagedFile(path=CONSTRAINTS, content=_lines(wanted.constraints)))
        if wanted.preferred:
            staged.append(StagedFile(path=LOCK, content=preferences(wanted.preferred)))
    if wanted.locked:
        pinned = [line for item in wanted.locked for line in _pinned(item)]
        staged.append(StagedFile(path=AUTHORS_LOCK, content=_lines(pinned)))
    return tuple(staged)


def _pinned(item: Declared) -> list[str]:
    """A requirement with its hashes; comments in front say which file each hash is of, where the author's lock does."""
    names = [f"# {value} {file.name}" for file in item.files for value in file.hashes] if len(item.hashes) > 1 else []
    return [*names, f"{item.specifier} {' '.join(f'--hash={value}' for value in item.hashes)}"]


def _solve_step(wanted: Wanted) -> Step:
    """Solve versions through the mirror into a lock with hashes."""
    argv = [
        *QUIETLY, "uv", "pip", "compile", "--no-config", "--no-sources", "--python", PYTHON, "--format", "pylock.toml",
        "--no-header", *_builds(wanted), "--default-index", INDEX, "--output-file", LOCK, REQUIREMENTS,
    ]  # fmt: skip
    if wanted.constraints:
        argv += ["--constraints", CONSTRAINTS]
    return Step(kind=StepKind.SOLVE, argv=tuple(argv), env=dict(ENVIRONMENT))


def _install_step(library: str, wanted: Wanted) -> Step:
    """Install exactly the lock; each file must have the lock's hash.

    Copies, not hard links: files of an environment are shared with nothing.
    """
    argv = (
        "uv", "pip", "sync", "--preview-features", "pylock", "--no-config", "--python", PYTHON, "--target", library,
        "--link-mode", "copy", *_builds(wanted), "--default-index", INDEX, LOCK,
    )  # fmt: skip
    return Step(kind=StepKind.INSTALL, argv=argv, env=dict(ENVIRONMENT))


def _locked_step(library: str, wanted: Wanted) -> Step:
    """Install what the author locked, with the author's hashes; a later step leaves it as it is."""
    argv = (
        "uv", "pip", "sync", "--no-config", "--python", PYTHON, "--target", library, "--require-hashes",
        "--link-mode", "copy", *_builds(wanted), "--default-index", INDEX, AUTHORS_LOCK,
    )  # fmt: skip
    return Step(kind=StepKind.INSTALL, argv=argv, env=dict(ENVIRONMENT))


def _builds(wanted: Wanted) -> tuple[str, ...]:
    return () if wanted.builds else ("--no-build",)


def _lines(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
