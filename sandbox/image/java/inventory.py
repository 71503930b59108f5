"""Prints what is installed in an environment of Java, or which jars lie in a directory.

Usage: inventory.py ENVIRONMENT
       inventory.py --jars DIRECTORY

One JSON object: {"format": 1, "ecosystem": "java", "files": [...]}, a file being {"path" (relative), "sha256"} and, as
far as it says so itself, "group", "artifact", "version", "parent" (`group:artifact:version`), "licenses"
([{"name", "url"}]). Of an environment these are the files in lib and pom; links are not followed.
What is read was written by strangers: every text and list has a limit, and a POM with a document type tells nothing.
"""

# ruff: noqa: PTH118, PTH123 -- as the other inventories are written
import hashlib
import json
import os
import re
import sys
import zipfile
from collections.abc import Iterator

# A document type, in which entities would be declared, is refused.
from xml.parsers import expat

POM_LIMIT_BYTES = 4 * 1024 * 1024
PROPERTIES_LIMIT_BYTES = 64 * 1024
TEXT_LIMIT = 2_000
LICENSE_LIMIT = 50
FILE_LIMIT = 25_000
JAR_LIMIT = 1_000
ENTRY_LIMIT = 100_000
PROPERTIES = re.compile(r"META-INF/maven/[^/]{1,200}/[^/]{1,200}/pom\.properties")
LINE = re.compile(r"^(groupId|artifactId|version)\s*=\s*(\S{1,200})\s*$", re.MULTILINE)
PARENT = ("project", "parent")
LICENSE = ("project", "licenses", "license")
PARENT_KEYS = ("groupId", "artifactId", "version")


class PomReader:
    """Reads parent and licences of one POM, and nothing else."""

    def __init__(self) -> None:
        self._place: list[str] = []
        self._text = ""
        self._parent: dict[str, str] = {}
        self._licenses: list[dict[str, str]] = []
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._refuse

    def read(self, content: bytes) -> dict[str, object]:
        """Parent and licences; nothing of a POM that cannot be read."""
        try:
            self._parser.Parse(content, True)
        except (expat.ExpatError, ValueError, LookupError):
            return {}
        parent = ":".join(self._parent.get(key, "") for key in PARENT_KEYS)
        return {"parent": parent if self._parent else None, "licenses": self._licenses}

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        del attributes
        self._place.append(name.rpartition(" ")[2])
        self._text = ""
        if tuple(self._place) == LICENSE and len(self._licenses) < LICENSE_LIMIT:
            self._licenses.append({"name": "", "url": ""})

    def _characters(self, text: str) -> None:
        self._text = (self._text + text)[:TEXT_LIMIT]

    def _end(self, name: str) -> None:
        del name
        key = self._place.pop()
        above = tuple(self._place)
        if above == PARENT and key in PARENT_KEYS:
            self._parent[key] = self._text.strip()
        elif above == LICENSE and key in {"name", "url"} and self._licenses:
            self._licenses[-1][key] = self._text.strip()

    @staticmethod
    def _refuse(*details: object) -> None:
        del details
        raise ValueError("document type")


def sha256(path: str) -> str:
    """The SHA-256 of a regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    with open(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(root: str, directory: str, limit: int) -> list[str]:
    """The files of a directory, relative to the root; raises ValueError if there are more than anybody installs."""
    place = os.path.join(root, directory)
    found = sorted(
        os.path.join(directory, entry.name)
        for entry in (os.scandir(place) if os.path.isdir(place) else ())  # noqa: PTH112 -- see above
        if not entry.is_dir(follow_symlinks=False)
    )
    if len(found) > limit:
        raise ValueError(f"more than {limit} files, which is the limit")
    return found


def environment(root: str) -> Iterator[dict[str, object]]:
    """The files of an environment, with what the POMs say."""
    for directory in ("lib", "pom"):
        for name in files_of(root, directory, FILE_LIMIT):
            path = os.path.join(root, name)
            row: dict[str, object] = {"path": name, "sha256": sha256(path)}
            if directory == "pom":
                with open(path, "rb") as file:
                    content = file.read(POM_LIMIT_BYTES + 1)
                row |= PomReader().read(content) if len(content) <= POM_LIMIT_BYTES else {}
            yield row


def jars(root: str) -> Iterator[dict[str, object]]:
    """The jars of a directory, with the name that Maven gave them when they were built."""
    for name in files_of(root, "", JAR_LIMIT):
        path = os.path.join(root, name)
        if name.endswith(".jar") and not os.path.islink(path):  # noqa: PTH114 -- see above
            yield {"path": name, "sha256": sha256(path), **built_as(path)}


def built_as(path: str) -> dict[str, str]:
    """Group, artifact and version of a jar that holds the mark of one build; nothing if it holds several."""
    try:
        with zipfile.ZipFile(path) as jar:
            entries = [entry for entry in jar.infolist()[:ENTRY_LIMIT] if PROPERTIES.fullmatch(entry.filename)]
            if len(entries) != 1:
                return {}
            with jar.open(entries[0]) as file:
                text = file.read(PROPERTIES_LIMIT_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, EOFError):
        return {}
    found = dict(LINE.findall(text))
    if len(found) != len(PARENT_KEYS):
        return {}
    return {"group": found["groupId"], "artifact": found["artifactId"], "version": found["version"]}


def main(arguments: list[str]) -> int:
    """Answers with an exit code: 0 printed, 1 the directory cannot be read, 2 wrong arguments."""
    by_hand = arguments[:1] == ["--jars"]
    places = arguments[1:] if by_hand else arguments
    if len(places) != 1:
        sys.stderr.write("usage: inventory.py [--jars] DIRECTORY\n")
        return 2
    try:
        rows = list((jars if by_hand else environment)(os.path.realpath(places[0])))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"inventory: {error}\n")
        return 1
    sys.stdout.write(json.dumps({"format": 1, "ecosystem": "java", "files": rows}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
