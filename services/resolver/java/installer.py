"""The commands that solve and install with Maven's resolver, and the files that they start from."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from services.resolver.errors import LockError
from services.resolver.install import InstallCommands
from services.resolver.java.locks import LOCK, install_rows, preferences, read_maven_lock
from services.resolver.model import StagedFile, Step, StepKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.resolver.java.declared import PomFile
    from services.resolver.java.locks import MavenLock

# The sandbox's own door to the repository: an address inside the sandbox, the same in each.
REPOSITORY = "http://127.0.0.1:7480/maven/"
SUPPORT = "/usr/lib/qila/java"
# In the install's working directory: what one install fetched is no other's business.
LOCAL_REPOSITORY = "repository"
JAVA = ("/usr/bin/java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
PROGRAMS = f"{SUPPORT}/qila.jar"
RESOLVER = f"{PROGRAMS}:/usr/share/maven/lib/*"
INVENTORY = ("/usr/bin/python3", "-I", "-S", f"{SUPPORT}/inventory.py")
POM, WORKSPACE, ROWS, PREVIOUS = "pom.xml", "workspace.tsv", "packages.tsv", "previous.tsv"


def solved_install(
    environment: str, poms: Sequence[PomFile], flags: Sequence[str], previous_lock: bytes | None
) -> InstallCommands:
    """Solve the first POM, the others being those of its workspace, and install what comes of it.

    `flags` are those of the sandbox's Solve. The versions of the previous lock are taken where a POM leaves the choice.
    """
    names = [POM, *(f"module-{number}.pom" for number in range(1, len(poms)))]
    rows = "".join(f"{pom.id}\t{name}\n" for pom, name in zip(poms, names, strict=True))
    staged = [StagedFile(path=name, content=pom.content) for pom, name in zip(poms, names, strict=True)]
    staged.append(StagedFile(path=WORKSPACE, content=rows.encode()))
    if previous_lock:
        # One of an older Qila, perhaps, is passed over: it is a preference, and nothing depends on it.
        with suppress(LockError):
            staged.append(StagedFile(path=PREVIOUS, content=preferences(read_maven_lock(previous_lock))))
    solve = Step(
        kind=StepKind.SOLVE,
        argv=(*JAVA, "-cp", RESOLVER, "qila.Solve", REPOSITORY, LOCAL_REPOSITORY, *flags),
    )
    return _commands(environment, staged, (solve,))


def locked_install(environment: str, lock: MavenLock) -> InstallCommands:
    """Install exactly what a lock holds."""
    return _commands(environment, [StagedFile(path=ROWS, content=install_rows(lock))], ())


def _commands(environment: str, staged: list[StagedFile], steps: tuple[Step, ...]) -> InstallCommands:
    install = Step(
        kind=StepKind.INSTALL,
        argv=(*JAVA, "-cp", RESOLVER, "qila.Install", REPOSITORY, LOCAL_REPOSITORY, environment),
    )
    return InstallCommands(
        staged=tuple(staged),
        steps=(*steps, install),
        inventory_argv=(*INVENTORY, environment),
        native_lock=LOCK,
    )
