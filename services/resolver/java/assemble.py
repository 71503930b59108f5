"""From what a program needs to the plan that installs and launches it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.resolver.fingerprint import fingerprint
from services.resolver.install import InstallCommands, environment_path
from services.resolver.java import installer
from services.resolver.java.launch import launch_of
from services.resolver.java.locks import install_rows
from services.resolver.java.needs import ECOSYSTEM, Needs
from services.resolver.java.release import release_of
from services.resolver.java.target import JUNIT
from services.resolver.model import Link, Plan, UnmanagedInventory
from services.resolver.paths import WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.resolver.java.target import Program
    from services.resolver.model import Context, Target

TOOLS = ("java", "maven")
# Where people put jars by hand.
BY_HAND = ("lib", "libs")
LINK = Link(path="deps-java", directory="lib")


def assemble(needs: Needs, program: Program, target: Target, context: Context, files: Mapping[str, bytes]) -> Plan:
    """The whole plan; without anything to install there is no fingerprint."""
    flags = _flags(needs, program)
    wanted = bool(needs.poms or needs.lock) and bool(needs.requirements)
    digest = _digest(needs, flags, context) if wanted else ""
    environment = environment_path(ECOSYSTEM, digest)
    install = InstallCommands()
    if digest and needs.lock is not None:
        install = installer.locked_install(environment, needs.lock)
    elif digest:
        install = installer.solved_install(environment, needs.poms, flags, context.previous_locks.get(ECOSYSTEM))
    return Plan(
        ecosystem=ECOSYSTEM,
        source=needs.source,
        launch=launch_of(program, target, environment, files, release_of(context.toolchain["java"])),
        manifests=needs.manifests,
        requirements=needs.requirements,
        undeclared=needs.undeclared,
        unknown=needs.unknown,
        notices=needs.notices,
        staged=install.staged,
        steps=install.steps,
        fingerprint=digest,
        environment=environment,
        native_lock=install.native_lock,
        inventory_argv=install.inventory_argv,
        links=(LINK,) if digest else (),
        unmanaged=tuple(
            UnmanagedInventory(path=f"{WORKSPACE}/{name}", argv=(*installer.INVENTORY, "--jars", f"{WORKSPACE}/{name}"))
            for name in BY_HAND
        ),
    )


def _flags(needs: Needs, program: Program) -> tuple[str, ...]:
    """What the solve is told beside the POM."""
    if needs.lock is not None:
        return ()
    highest = ("highest",) if needs.highest else ()
    tests = ("tests",) if program.with_tests else ()
    return (*highest, *tests, *(("runner",) if program.runner == JUNIT else ()))


def _digest(needs: Needs, flags: tuple[str, ...], context: Context) -> str:
    """The bytes that the install starts from decide it."""
    manifests = {f"{pom.id}": pom.content for pom in needs.poms}
    if needs.lock is not None:
        manifests[installer.ROWS] = install_rows(needs.lock)
    return fingerprint(
        ecosystem=ECOSYSTEM,
        manifests=manifests,
        requirements=[],
        toolchain={tool: context.toolchain[tool] for tool in TOOLS},
        platform=context.platform,
        package_policy=context.package_policy,
        settings={"flags": flags},
    )
