"""The commands that solve and install with npm, and the files they start from."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from services.resolver.errors import LockError
from services.resolver.install import InstallCommands
from services.resolver.model import StagedFile, Step, StepKind
from services.resolver.node.locks import LockKind, graph_of, kind_of, read_manifest
from services.resolver.node.npm_lock import ARCHIVE, read_npm_lock
from services.resolver.node.rebuild import PROJECT, files_of_graph, files_of_qila_lock, to_json

if TYPE_CHECKING:
    from services.resolver.model import Lockfile

# The sandbox's own door to the registry: an address inside the sandbox, the same in each.
REGISTRY = "http://127.0.0.1:7480/npm/"
SUPPORT = "/usr/lib/qila/node-support"
PYTHON = ("/usr/bin/python3", "-I", "-S")
MANIFEST = "package.json"
LOCK = "package-lock.json"

# Of a manifest, what decides what is installed: neither its own scripts nor its name are part of an environment.
MANIFEST_KEYS = (
    "dependencies", "devDependencies", "optionalDependencies", "peerDependencies",
    "peerDependenciesMeta", "overrides", "allowScripts",
)  # fmt: skip
OPTIONS = (
    f"--registry={REGISTRY}",
    # No file that a program, or an earlier install's script, could have written decides anything.
    "--userconfig=/dev/null", "--globalconfig=/etc/npmrc", "--workspaces=false",
    "--include=dev", "--include=optional", "--include=peer", "--lockfile-version=3",
    "--omit-lockfile-registry-resolved", "--no-audit", "--no-fund", "--no-update-notifier", "--no-progress",
    "--color=false", "--loglevel=info", "--logs-max=0",
    # A read that stalls ends long before the install's deadline.
    "--fetch-timeout=60000", "--fetch-retries=2",
)  # fmt: skip
ENVIRONMENT = MappingProxyType({"NO_COLOR": "1"})


def install_commands(
    environment: str,
    *,
    package_json: bytes,
    lock: Lockfile | None,
    previous_lock: bytes | None,
    scripts: bool,
    frozen: bool,
) -> InstallCommands:
    """Solve and install a manifest, or install exactly what a lock that agrees with it holds (`frozen`).

    The lock may be npm's, yarn's, pnpm's or a qila.lock.json: npm installs them all, and the native lock of the
    environment is npm's. Without `frozen`, the versions of the lock, or else of the previous one, are only preferred.
    Raises LockError if the lock cannot be read, or names what npm's registry does not have (links, git, local files);
    ManifestError.
    """
    content: bytes | None
    if lock is not None and frozen:
        manifest, content, steps = _frozen(package_json, lock)
        verb = "ci"
    else:
        manifest = _manifest(package_json)
        content, steps = _preferred(package_json, lock, previous_lock)
        verb = "install"
    staged = [StagedFile(path=MANIFEST, content=manifest)]
    if content:
        staged.append(StagedFile(path=LOCK, content=content))
    return InstallCommands(
        staged=tuple(staged),
        steps=(*steps, install_step(environment, verb, scripts=scripts)),
        inventory_argv=inventory_command(environment),
        native_lock=LOCK,
        # `npm ci` changes no lock; completing one does.
        native_lock_staged=verb == "ci" and not steps,
    )


def given_lock_files(lockfile: Lockfile) -> tuple[bytes, bytes]:
    """The package.json and package-lock.json of a lock from outside, to be installed with `frozen`.

    The lock is npm's or a qila.lock.json. Raises LockError.
    """
    if kind_of(lockfile) is LockKind.QILA:
        return files_of_qila_lock(lockfile.content, lockfile.name)
    lock = read_npm_lock(lockfile.content, lockfile.name)
    if lock.root is None:
        reason = "is of npm 6 or older and does not say what the project asks for; give it with its package.json"
        raise LockError(name=lockfile.name, line=0, reason=reason)
    root = json.loads(lockfile.content)["packages"].get("", {})
    return to_json({**PROJECT, **{key: root[key] for key in MANIFEST_KEYS if key in root}}), lockfile.content


def inventory_command(directory: str) -> tuple[str, ...]:
    """Prints the inventory of the packages below a directory."""
    return (*PYTHON, f"{SUPPORT}/inventory.py", directory)


def complete_step() -> Step:
    """Add to a lock that was rebuilt what only the registry knows."""
    return _step(StepKind.SOLVE, (f"{SUPPORT}/complete_lock.py", REGISTRY))


def install_step(environment: str, verb: str, *, scripts: bool) -> Step:
    """Fill the environment's own directory, and leave npm's lock of it in the stage.

    The verb is npm's: `ci` installs exactly the lock; `install` solves and installs in one process, which reads the
    registry's pages once.
    """
    argv = ["npm", verb, *OPTIONS, *(() if scripts else ("--ignore-scripts",))]
    return _step(StepKind.INSTALL, (f"{SUPPORT}/run_npm.py", environment, REGISTRY, "--", *argv))


def _step(kind: StepKind, arguments: tuple[str, ...]) -> Step:
    return Step(kind=kind, argv=(*PYTHON, *arguments), env=dict(ENVIRONMENT))


def _frozen(package_json: bytes, lock: Lockfile) -> tuple[bytes, bytes, tuple[Step, ...]]:
    """The manifest and the lock to install, and what is to be done before."""
    if kind_of(lock) is LockKind.NPM:
        return _manifest(package_json), _without_addresses(lock), ()
    if kind_of(lock) is LockKind.QILA:
        return (*files_of_qila_lock(lock.content, lock.name), (complete_step(),))
    return (*files_of_graph(graph_of(package_json, lock)), (complete_step(),))


def _preferred(
    package_json: bytes, lock: Lockfile | None, previous_lock: bytes | None
) -> tuple[bytes | None, tuple[Step, ...]]:
    """A lock whose versions npm takes where the manifest allows them, and what is to be done before."""
    if lock is None:
        return previous_lock, ()
    if kind_of(lock) is LockKind.NPM:
        return _without_addresses(lock), ()
    if kind_of(lock) is LockKind.QILA:
        _, content = files_of_qila_lock(lock.content, lock.name)
    else:
        _, content = files_of_graph(graph_of(package_json, lock, partly=True))
    return content, (complete_step(),)


def _without_addresses(lock: Lockfile) -> bytes:
    """A lock of npm's, with packages by name, version and hash alone: an address could lead elsewhere.

    Raises LockError for what the registry does not have.
    """
    for location, entry in read_npm_lock(lock.content, lock.name).entries.items():
        if entry.link or (entry.resolved and not ARCHIVE.fullmatch(entry.resolved)):
            reason = f"{location[:200]} is not a package of npm's registry"
            raise LockError(name=lock.name, line=entry.line, reason=reason)
    document = json.loads(lock.content)
    pending: list[Any] = [document.get("packages", {}), document.get("dependencies", {})]
    while pending:
        for entry in pending.pop().values():
            entry.pop("resolved", None)
            if isinstance(entry.get("dependencies"), dict) and "version" in entry:
                pending.append({name: item for name, item in entry["dependencies"].items() if isinstance(item, dict)})
    return to_json(document)


def _manifest(package_json: bytes) -> bytes:
    document = read_manifest(package_json)
    return to_json({**PROJECT, **{key: document[key] for key in MANIFEST_KEYS if key in document}})
