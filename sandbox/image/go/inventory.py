"""Prints which modules an environment holds: each one's hash, computed from its files, and its licences.

Usage: inventory.py ENVIRONMENT

One JSON object: {"format": 1, "ecosystem": "go", "modules": [...], "graph": [[REQUIRER, REQUIRED], ...]}, a module
being {"path", "version", "hash" (as go.sum has it), "licenses" ([{"name", "text"}], cut)}; in the graph a module is
written path@version. What is read was written by strangers: everything has a limit, and links are not followed.
"""

# ruff: noqa: PTH112, PTH113, PTH114, PTH118, PTH119, PTH120, PTH123, PTH208 -- there are tens of thousands of files, and pathlib doubles the time
import base64
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator

MODULE_LIMIT = 20_000
FILE_LIMIT = 2_000_000
LICENSE_LIMIT_BYTES = 48 * 1024
LICENSES_EACH = 4
GRAPH_LIMIT_BYTES = 32 * 1024 * 1024
GRAPH_LIMIT = 200_000
PAIR = 2
LICENSE = re.compile(r"(?:un)?licen[cs]es?(?:[.-][a-z0-9.-]{1,40})?|copying(?:\.[a-z0-9.]{1,20})?", re.IGNORECASE)
HASH_SUFFIX = ".ziphash"


def unescape(text: str) -> str:
    """A path or version as the module cache spells it, in its own spelling."""
    return re.sub(r"!([a-z])", lambda match: match[1].upper(), text)


def recorded(cache: str) -> Iterator[tuple[str, str]]:
    """Path and version, as the cache spells them, of each module that was downloaded."""
    downloads = os.path.join(cache, "cache", "download")
    count = 0
    for directory, names, files in os.walk(downloads):
        names.sort()
        if os.path.basename(directory) != "@v":
            continue
        path = os.path.relpath(os.path.dirname(directory), downloads)
        for name in sorted(files):
            if name.endswith(HASH_SUFFIX):
                count += 1
                if count > MODULE_LIMIT:
                    raise ValueError(f"more than {MODULE_LIMIT} modules, which is the limit")
                yield path, name.removesuffix(HASH_SUFFIX)


def tree_hash(directory: str, name: str) -> str:
    """The hash of a module's files that go.sum has: of their names and the SHA-256 of each, sorted by name."""
    lines = []
    for place, names, files in os.walk(directory):
        names.sort()
        for file in files:
            path = os.path.join(place, file)
            if os.path.islink(path):
                raise ValueError(f"{path} is a link")
            with open(path, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            lines.append((f"{name}/{os.path.relpath(path, directory)}", digest))
        if len(lines) > FILE_LIMIT:
            raise ValueError(f"more than {FILE_LIMIT} files in {name}, which is the limit")
    total = hashlib.sha256()
    for path, digest in sorted(lines, key=lambda line: os.fsencode(line[0])):
        total.update(f"{digest}  {path}\n".encode("utf-8", "surrogateescape"))
    return f"h1:{base64.b64encode(total.digest()).decode()}"


def licenses(directory: str) -> list[dict[str, str]]:
    """The files in a module's own directory that tell its licence."""
    names = sorted(name for name in os.listdir(directory) if LICENSE.fullmatch(name) and not name.endswith(".go"))
    found: list[dict[str, str]] = []
    for name in names:
        path = os.path.join(directory, name)
        if len(found) == LICENSES_EACH:
            break
        if os.path.isfile(path) and not os.path.islink(path):
            with open(path, "rb") as stream:
                text = stream.read(LICENSE_LIMIT_BYTES).decode("utf-8", "replace")
            found.append({"name": name, "text": text})
    return found


def modules(cache: str) -> Iterator[dict[str, object]]:
    """One row for each module: see the top of this file. One whose directory is missing has an empty hash."""
    for path, version in recorded(cache):
        directory = os.path.join(cache, f"{path}@{version}")
        name = f"{unescape(path)}@{unescape(version)}"
        there = os.path.isdir(directory)
        yield {
            "path": unescape(path),
            "version": unescape(version),
            "hash": tree_hash(directory, name) if there else "",
            "licenses": licenses(directory) if there else [],
        }


def graph(environment: str) -> list[list[str]]:
    """The pairs that `go mod graph` wrote."""
    try:
        with open(os.path.join(environment, "graph.txt"), encoding="utf-8", errors="replace") as stream:
            rows = [line.split() for line in stream.read(GRAPH_LIMIT_BYTES).splitlines()]
    except FileNotFoundError:
        return []
    return [row for row in rows if len(row) == PAIR][:GRAPH_LIMIT]


def main(arguments: list[str]) -> int:
    """Answers with an exit code: 0 printed, 1 the environment cannot be read, 2 wrong arguments."""
    if len(arguments) != 1:
        sys.stderr.write("usage: inventory.py ENVIRONMENT\n")
        return 2
    environment = os.path.realpath(arguments[0])
    try:
        rows = list(modules(os.path.join(environment, "mod")))
        pairs = graph(environment)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"inventory: {error}\n")
        return 1
    sys.stdout.write(json.dumps({"format": 1, "ecosystem": "go", "modules": rows, "graph": pairs}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
