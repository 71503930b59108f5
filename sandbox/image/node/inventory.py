"""Prints what is installed below a node_modules directory, from the packages' own package.json.

Usage: inventory.py DIRECTORY

One JSON object: {"format": 1, "ecosystem": "node", "packages": [...]}, a package being {"location" (relative to
DIRECTORY, as in `node_modules/a/node_modules/b`), "name", "version" (text or null), "license" (the field `license`, or
`licenses`, as JSON), "dependencies", "optional_dependencies", "peer_dependencies" (names), "has_install_script",
"bin" (names)}. Links are not followed.
"unknown" lists what Node would load although it is no package: files, and directories without a package.json that can
be read, but not what is hidden, which is the package managers' own.
What is read was written by strangers: every text and list has a limit.
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


def children(root: str, modules: str) -> Iterator[os.DirEntry[str]]:
    """What lies in one node_modules and its scopes; what is hidden is the package managers'."""
    path = os.path.join(root, modules)
    # The link in a workspace leads to an environment, whose packages are listed there.
    if os.path.islink(path) or not os.path.isdir(path):
        return
    for entry in shown(path):
        if entry.name.startswith("@") and entry.is_dir(follow_symlinks=False):
            try:
                yield from shown(entry.path)
            except OSError:
                yield entry
        else:
            yield entry


def shown(path: str) -> list[os.DirEntry[str]]:
    """What is not hidden in a directory, and no link, by name."""
    found = [entry for entry in os.scandir(path) if not entry.name.startswith(".") and not entry.is_symlink()]
    return sorted(found, key=lambda entry: entry.name)


def is_loadable(entry: os.DirEntry[str]) -> bool:
    """Whether Node might load it: a file, or a directory with more in it than packages."""
    if not entry.is_dir(follow_symlinks=False):
        return True
    try:
        with os.scandir(entry.path) as inside:
            return any(inner.name != "node_modules" for inner in inside)
    except OSError:
        return True


def packages(root: str, unknown: list[str]) -> Iterator[dict[str, object]]:
    """Every package below a directory, each before those that lie in it; the rest is added to what is unknown.

    Raises ValueError if there are more packages, or deeper ones, than anybody installs.
    """
    pending = ["node_modules"]
    count = 0
    while pending:
        modules = pending.pop()
        if modules.count("node_modules") > DEPTH_LIMIT:
            raise ValueError(f"packages lie {DEPTH_LIMIT} deep in each other, which is the limit")
        for entry in children(root, modules):
            count += 1
            if count > PACKAGE_LIMIT:
                raise ValueError(f"more than {PACKAGE_LIMIT} packages, which is the limit")
            location = os.path.relpath(entry.path, root)
            manifest = {}
            # A directory without a package.json is no package, but may hold some.
            if entry.is_dir(follow_symlinks=False):
                pending.append(f"{location}/node_modules")
                manifest = read_manifest(entry.path)
            if manifest:
                yield describe(location, manifest)
            elif is_loadable(entry):
                unknown.append(text(location) or "")


def main(arguments: list[str]) -> int:
    """Answers with an exit code: 0 printed, 1 the directory cannot be read, 2 wrong arguments."""
    if len(arguments) != 1:
        sys.stderr.write("usage: inventory.py DIRECTORY\n")
        return 2
    unknown: list[str] = []
    try:
        rows = list(packages(os.path.realpath(arguments[0]), unknown))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"inventory: {error}\n")
        return 1
    rows.sort(key=lambda row: str(row["location"]))
    document = {"format": 1, "ecosystem": "node", "packages": rows, "unknown": sorted(unknown)}
    sys.stdout.write(json.dumps(document) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
