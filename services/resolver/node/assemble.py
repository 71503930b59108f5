"""From what a program needs to the plan that installs and launches it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.fingerprint import fingerprint
from services.resolver.install import InstallCommands, environment_path
from services.resolver.model import Link, Notice, NoticeKind, Plan, Step, StepKind, UnmanagedInventory
from services.resolver.node import installer
from services.resolver.node.launch import launch_of
from services.resolver.node.lock import install_script_packages
from services.resolver.node.needs import ECOSYSTEM, Needs
from services.resolver.node.package import MANIFEST
from services.resolver.node.specifier import split_package
from services.resolver.paths import WORKSPACE, join, normal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from services.resolver.model import Context
    from services.resolver.node.target import Run

MODULES = "node_modules"
TOOLS = ("node", "npm")
MAX_NOTICES = 50
# Where a program's own `npm install` and `npm install -g` put packages.
BY_HAND = (WORKSPACE, f"{WORKSPACE}/.local/lib")
# Pairs of a directory and the place of a link to it.
LINK_SCRIPT = 'while [ $# -gt 1 ]; do mkdir -p "${2%/*}" && ln -sfn "$1" "$2" || exit 1; shift 2; done'


def assemble(needs: Needs, run: Run, context: Context, tree: Collection[str]) -> Plan:
    """The whole plan; without anything to install there is no fingerprint."""
    digest = _digest(needs, context) if needs.requirements or needs.links else ""
    environment = environment_path(ECOSYSTEM, digest)
    install = InstallCommands()
    if digest:
        install = installer.install_commands(
            environment,
            package_json=needs.package_json,
            lock=needs.lock,
            previous_lock=context.previous_locks.get(ECOSYSTEM),
            scripts=context.options.scripts,
            frozen=needs.frozen,
        )
    return Plan(
        ecosystem=ECOSYSTEM,
        source=needs.source,
        launch=launch_of(run, environment, tree),
        manifests=needs.manifests,
        requirements=needs.requirements,
        undeclared=needs.undeclared,
        unknown=needs.unknown,
        optional_skipped=needs.optional_skipped,
        notices=(*needs.notices, *_skipped_scripts(needs, install, context)),
        staged=install.staged,
        steps=(*install.steps, *_link_steps(environment, needs.links)),
        fingerprint=digest,
        environment=environment,
        native_lock=install.native_lock,
        inventory_argv=install.inventory_argv,
        lock_lines=needs.lock_lines if needs.frozen else (),
        native_lock_staged=install.native_lock_staged,
        links=(Link(path=MODULES, directory=f"{environment}/{MODULES}"),) if digest else (),
        unmanaged=tuple(
            UnmanagedInventory(path=f"{place}/{MODULES}", argv=installer.inventory_command(place)) for place in BY_HAND
        ),
    )


def _digest(needs: Needs, context: Context) -> str:
    """The bytes that the install starts from decide it, and whether packages may run code of their own."""
    manifests = {"package.json": needs.package_json}
    if needs.lock is not None:
        manifests[needs.lock.name] = needs.lock.content
    return fingerprint(
        ecosystem=ECOSYSTEM,
        manifests=manifests,
        requirements=[],
        toolchain={tool: context.toolchain[tool] for tool in TOOLS},
        platform=context.platform,
        package_policy=context.package_policy,
        settings={
            "scripts": [str(context.options.scripts)],
            "links": [f"{name}:{directory}" for name, directory in sorted(needs.links.items())],
        },
    )


def _skipped_scripts(needs: Needs, install: InstallCommands, context: Context) -> list[Notice]:
    """The packages of a lock whose own code would run in the install, if it may not."""
    locks = [file.content for file in install.staged if file.path == install.native_lock]
    if context.options.scripts or not needs.frozen:
        return []
    detail = "what they would build is missing"
    kind = NoticeKind.INSTALL_SCRIPTS_SKIPPED
    return [
        Notice(kind=kind, subject=name, detail=detail)
        for lock in locks
        for name in install_script_packages(lock)[:MAX_NOTICES]
    ]


def _link_steps(environment: str, links: Mapping[str, str]) -> tuple[Step, ...]:
    """Packages of the workspace are found by name like others; a link of that name leads to them.

    Raises ManifestError for a link that would lie outside the environment, or lead out of the workspace.
    """
    for name, directory in links.items():
        _check_link(name, directory)
    pairs = [
        text
        for name, directory in sorted(links.items())
        for text in (join(WORKSPACE, directory) if directory else WORKSPACE, f"{environment}/{MODULES}/{name}")
    ]
    if not pairs:
        return ()
    return (Step(kind=StepKind.INSTALL, argv=("/bin/sh", "-c", LINK_SCRIPT, "link-packages", *pairs)),)


def _check_link(name: str, directory: str) -> None:
    path = join(directory, MANIFEST)
    if split_package(name) != (name, ""):
        raise ManifestError(path=path, reason=f"{name[:80]!r} is no name that npm allows")
    if normal(directory) != directory or directory.startswith("-") or not directory.isprintable():
        raise ManifestError(
            path=path, reason="a package in a directory of this name cannot be imported by its own name"
        )
