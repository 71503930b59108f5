"""Prints what is installed below a node_modules directory, from the packages' own package.json.

Usage: inventory.py DIRECTORY

One JSON object: {"format": 1, "ecosystem": "node", "packages": [...]}, a package being {"location" (relative to
DIRECTORY, as in `node_modules/a/node_modules/b`), "name", "version" (text or null), "license" (the field `license`, or
`licenses`, as JSON), "dependencies", "optional_dependencies", "peer_dependencies" (names), "has_install_script",
"bin" (names)}. Links are not followed.
What is read was written by strangers: every text and list has a limit, and a directory without a package.json that can
be read is no package.
"""

# ruff: noqa: PTH112, PTH114, PTH118, PTH123 -- there are thousands of directories, and pathlib doubles the time
import json
import os
import sys
from collections.abc import Iterator

MANIFEST_LIMIT_BYTES = 4 * 1024 * 1024
TEXT_LIMIT = 64 * 1024
LIST_LIMIT = 2_000
PACKAGE_LIMIT = 20_000
DEPTH_LIMIT = 64
INSTALL_SCRIPTS = ("preinstall", "install", "postinstall")


def text(value: object) -> str | None:
    """A string as JSON can carry it, cut to the limit; None for anything else."""
    if not isinstance(value, str):
        return None
    return value[:TEXT_LIMIT].encode("utf-8", "replace").decode("utf-8")


def names(value: object) -> list[str]:
    """The keys of an object, in order, up to the limit."""
    keys = sorted(value) if isinstance(value, dict) else []
    return [key for key in (text(key) for key in keys[:LIST_LIMIT]) if key]


def license_field(manifest: dict[str, object]) -> object:
    """The licence as a package says it: an expression, or the old forms (an object, a list of objects)."""
    for value in (manifest.get("license"), manifest.get("licenses")):
        if isinstance(value, str) and value.strip():
            return text(value)
        entries = value if isinstance(value, list) else [value]
        kinds = [text(entry.get("type")) if isinstance(entry, dict) else text(entry) for entry in entries[:LIST_LIMIT]]
        found = [kind for kind in kinds if kind]
        if found:
            return found
    return None


def read_manifest(directory: str) -> dict[str, object]:
    """What a package.json holds; nothing if it is missing, too big, no object or no regular file."""
    path = os.path.join(directory, "package.json")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with open(descriptor, "rb") as file:
            content = file.read(MANIFEST_LIMIT_BYTES + 1)
        value = json.loads(content) if len(content) <= MANIFEST_LIMIT_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def describe(location: str, manifest: dict[str, object]) -> dict[str, object]:
    """One row of the inventory: see the top of this file."""
    scripts = manifest.get("scripts")
    executables = manifest.get("bin")
    name = text(manifest.get("name"))
    return {
        "location": location,
        "name": name,
        "version": text(manifest.get("version")),
        "license": license_field(manifest),
        "dependencies": names(manifest.get("dependencies")),
        "optional_dependencies": names(manifest.get("optionalDependencies")),
        "peer_dependencies": names(manifest.get("peerDependencies")),
        "has_install_script": isinstance(scripts, dict) and any(script in scripts for script in INSTALL_SCRIPTS),
        "bin": [name.rpartition("/")[2]] if isinstance(executables, str) and name else names(executables),
    }


def children(root: str, modules: str) -> Iterator[str]:
    """The package directories in one node_modules, relative to the root; what is hidden is the package managers'."""
    path = os.path.join(root, modules)
    # The link in a workspace leads to an environment, whose packages are listed there.
    if os.path.islink(path) or not os.path.isdir(path):
        return
    entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
            continue
        path = f"{modules}/{entry.name}"
        if entry.name.startswith("@"):
            yield from (
                f"{path}/{inner.name}"
                for inner in sorted(os.scandir(os.path.join(root, path)), key=lambda inner: inner.name)
                if inner.is_dir(follow_symlinks=False) and not inner.name.startswith(".")
            )
        else:
            yield path


def packages(root: str) -> Iterator[dict[str, object]]:
    """Every package below a directory, each before those that lie in it.

    Raises ValueError if there are more packages, or deeper ones, than anybody installs.
    """
    pending = ["node_modules"]
    count = 0
    while pending:
        modules = pending.pop()
        if modules.count("node_modules") > DEPTH_LIMIT:
            raise ValueError(f"packages lie {DEPTH_LIMIT} deep in each other, which is the limit")
        for location in children(root, modules):
            count += 1
            if count > PACKAGE_LIMIT:
                raise ValueError(f"more than {PACKAGE_LIMIT} packages, which is the limit")
            pending.append(f"{location}/node_modules")
            manifest = read_manifest(os.path.join(root, location))
            # A directory without a package.json is no package, but may hold some.
            if manifest:
                yield describe(location, manifest)


def main(arguments: list[str]) -> int:
    """Answers with an exit code: 0 printed, 1 the directory cannot be read, 2 wrong arguments."""
    if len(arguments) != 1:
        sys.stderr.write("usage: inventory.py DIRECTORY\n")
        return 2
    try:
        rows = list(packages(os.path.realpath(arguments[0])))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"inventory: {error}\n")
        return 1
    rows.sort(key=lambda row: str(row["location"]))
    sys.stdout.write(json.dumps({"format": 1, "ecosystem": "node", "packages": rows}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
