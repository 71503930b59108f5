"""From what a program needs to the plan that installs and launches it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.resolver.fingerprint import fingerprint
from services.resolver.go import installer
from services.resolver.go.launch import launch_of
from services.resolver.go.names import ECOSYSTEM
from services.resolver.go.needs import with_preferences
from services.resolver.install import InstallCommands, environment_path
from services.resolver.model import Plan

if TYPE_CHECKING:
    from services.resolver.go.installer import Wanted
    from services.resolver.go.needs import Needs, Situation
    from services.resolver.model import Context, Target


def assemble(needs: Needs, situation: Situation, target: Target, context: Context) -> Plan:
    """The whole plan; without anything to install there is no fingerprint."""
    digest = _digest(needs.wanted, context) if needs.wanted is not None else ""
    environment = environment_path(ECOSYSTEM, digest)
    install = InstallCommands()
    if needs.wanted is not None:
        preferred = with_preferences(needs.wanted, context.previous_locks.get(ECOSYSTEM))
        install = installer.install_commands(environment, preferred)
    return Plan(
        ecosystem=ECOSYSTEM,
        source=needs.source,
        launch=launch_of(situation, target, environment),
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
        lock_lines=needs.lock_lines,
    )


def _digest(wanted: Wanted, context: Context) -> str:
    """The bytes that the install starts from decide it: manifests, and what the program imports."""
    return fingerprint(
        ecosystem=ECOSYSTEM,
        manifests=wanted.files,
        requirements=[],
        toolchain={"go": context.toolchain["go"]},
        platform=context.platform,
        package_policy=context.package_policy,
        added=wanted.get,
        settings={"directory": [wanted.directory], "solving": [wanted.solving.value], "language": [wanted.language]},
    )
