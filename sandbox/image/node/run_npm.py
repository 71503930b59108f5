"""Runs npm in a directory, and says what it does in lines that people and Qila read.

Usage: run_npm.py DIRECTORY REGISTRY -- COMMAND...

Makes the directory, copies ./package.json and, if there is one, ./package-lock.json into it, and runs the command with
`--prefix DIRECTORY`. In the copy of the lock, packages get their addresses below REGISTRY (with a slash at its end), so
that npm need not look them up; afterwards ./package-lock.json is the lock of what was installed, without addresses. Of
what npm prints, its progress becomes `Looked up 25 packages`, `Downloading name@version`, `Building name@version` and
`Built name@version`; everything else is passed on. After it comes `+ name@version` for each package of the lock.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "package.json"
LOCK = "package-lock.json"
MODULES = "node_modules/"
LINE_LIMIT = 64 * 1024
LOCK_LIMIT_BYTES = 64 * 1024 * 1024
LOOKED_UP_EACH = 25
HIDDEN = ("npm error Log files were not written", "npm warn Could not write error message to eresolve-report")
INTEGRITY = re.compile(
    r"npm error (?:\S+ )?[Ii]ntegrity checksum failed .*wanted (?P<wanted>\S+) but got (?P<got>\S+).*"
)
PACKAGE = r"(?P<name>(?:@[A-Za-z0-9._~-]+/)?[A-Za-z0-9._~-]+)"
VERSION = r"(?P<version>[0-9A-Za-z.+-]+)"
# The name of a tarball has no build's part of a version.
VERSIONED = re.compile(r"\d[0-9A-Za-z.-]*")
LOOK_UP = re.compile(rf"npm http fetch GET \d+ \S+/npm/{PACKAGE} .*")
TARBALL = re.compile(rf"npm http fetch GET 200 \S+/npm/{PACKAGE}/-/(?P<file>[^/ ]+)\.tgz .*")
SCRIPT = re.compile(rf"npm info run {PACKAGE}@{VERSION} (?:pre|post)?install (?P<rest>.*)")
# What npm says to those who look for its own faults, and how to approve scripts in a project that is no sandbox.
CHATTER = ("npm info ", "npm http ", "npm verbose ", "npm warn allow-scripts")


class Translator:
    """Turns npm's lines into ours, one at a time."""

    def __init__(self) -> None:
        self._looked_up = 0
        self.unexpected: list[tuple[str, str]] = []

    def __call__(self, line: str) -> str | None:
        """The line to print, or None."""
        if match := TARBALL.fullmatch(line):
            return self._downloading(match["name"], match["file"])
        if LOOK_UP.fullmatch(line):
            self._looked_up += 1
            return None if self._looked_up % LOOKED_UP_EACH else f"Looked up {self._looked_up} packages"
        if match := SCRIPT.fullmatch(line):
            # The end of a script comes as `{ code: 0, signal: null }`.
            ended = match["rest"].startswith("{ code:")
            if ended and "code: 0," not in match["rest"]:
                return None
            return f"{'Built' if ended else 'Building'} {match['name']}@{match['version']}"
        if match := INTEGRITY.fullmatch(line):
            self.unexpected.append((match["wanted"], match["got"]))
        return None if line.startswith((*CHATTER, *HIDDEN)) else line

    def _downloading(self, name: str, file: str) -> str:
        version = file.removeprefix(f"{name.rpartition('/')[2]}-")
        return f"Downloading {name}@{version}"


@dataclass(frozen=True, kw_only=True, order=True)
class Locked:
    """One package of a lock, and whether it lies where the lock says."""

    name: str
    version: str
    integrity: str
    has_scripts: bool
    is_there: bool


def read_lock(path: Path) -> dict[str, Any]:
    """A lock as it is, whatever that is; raises OSError, ValueError or RecursionError."""
    if path.stat().st_size > LOCK_LIMIT_BYTES:
        raise ValueError(f"{path} is larger than a lock may be")
    lock: dict[str, Any] = json.loads(path.read_bytes())
    return lock


def name_of(location: str, entry: dict[str, Any]) -> str:
    """The package's own name; the directory's is another for an alias."""
    return str(entry.get("name") or location.rpartition(MODULES)[2])


def locked(directory: Path) -> list[Locked]:
    """The packages of a directory's lock."""
    try:
        entries = read_lock(directory / LOCK)["packages"].items()
        found = {
            Locked(
                name=name_of(location, entry),
                version=str(entry["version"]),
                integrity=str(entry.get("integrity", "")),
                has_scripts=entry.get("hasInstallScript") is True,
                is_there=(directory / location / "package.json").is_file(),
            )
            for location, entry in entries
            if location
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # npm itself says what is wrong with a lock.
        return []
    return sorted(found)


def address(registry: str, location: str, entry: dict[str, Any]) -> str | None:
    """Where the registry has a package of a lock; None if the lock leaves open what that is."""
    version = str(entry.get("version", ""))
    # Without a hash, npm is to take it from the registry's page.
    if not VERSIONED.fullmatch(version) or not entry.get("integrity") or entry.get("link") or entry.get("inBundle"):
        return None
    name = name_of(location, entry)
    return f"{registry}{name}/-/{name.rpartition('/')[2]}-{version}.tgz"


def add_addresses(lock: dict[str, Any], registry: str) -> None:
    """Tell npm where each package of a lock is: without, it asks the registry again for the page of every one."""
    for location, entry in lock["packages"].items():
        if location.startswith(MODULES) and "resolved" not in entry:
            found = address(registry, location, entry)
            if found is not None:
                entry["resolved"] = found


def bring_lock(source: Path, target: Path, registry: str) -> None:
    """Copy a lock, with addresses if it is of npm 7 or newer; raises OSError."""
    try:
        lock = read_lock(source)
        add_addresses(lock, registry)
        content = json.dumps(lock).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # npm itself says what is wrong with a lock, or takes the older form.
        content = source.read_bytes()
    target.write_bytes(content)


def prepare(directory: Path, registry: str) -> None:
    """Put there what npm starts from; raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(MANIFEST, directory / MANIFEST)
    if Path(LOCK).exists():
        bring_lock(Path(LOCK), directory / LOCK, registry)


def take_lock(directory: Path, command: list[str]) -> None:
    """Leave the lock that npm has made where the next step finds it; `npm ci` makes none. Raises OSError."""
    if "ci" not in command:
        shutil.copyfile(directory / LOCK, LOCK)


def batches(descriptor: int) -> Iterator[list[str]]:
    """The lines of a pipe, as many as there are at a time; what is longer than a line should be comes in pieces."""
    rest = b""
    while content := os.read(descriptor, LINE_LIMIT):
        *complete, rest = (rest + content).split(b"\n")
        if len(rest) > LINE_LIMIT:
            complete, rest = [*complete, rest], b""
        yield [line.decode("utf-8", "replace").rstrip("\r") for line in complete]
    if rest:
        yield [rest.decode("utf-8", "replace").rstrip("\r")]


def say(lines: Iterable[str]) -> None:
    """Some lines, at once: each write is a message to whoever watches the install."""
    text = "".join(f"{line}\n" for line in lines)
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()


def run(command: list[str], translate: Translator) -> int:
    """The exit code of a command whose lines are passed on; 128 and the signal's number if one ended it."""
    with subprocess.Popen(  # noqa: S603 -- the command is Qila's own
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        for lines in batches(process.stdout.fileno()):
            translated = map(translate, lines)
            say(line for line in translated if line is not None)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def report(directory: Path, command: list[str]) -> None:
    """What was installed, and whose scripts did not run."""
    packages = [package for package in locked(directory) if package.is_there]
    labels = dict.fromkeys(f"{package.name}@{package.version}" for package in packages)
    say(f"+ {label}" for label in labels)
    skipped = sorted({f"{package.name}@{package.version}" for package in packages if package.has_scripts})
    if skipped and "--ignore-scripts" in command:
        say([f"Install scripts that did not run: {', '.join(skipped)}"])


def report_hashes(directory: Path, unexpected: list[tuple[str, str]]) -> None:
    """Which package of the lock has other bytes in the registry: npm says the hashes alone."""
    say(
        f"lock: {package.name}@{package.version}: the lock says {wanted}, the registry has {got}"
        for wanted, got in unexpected
        for package in locked(directory)
        if wanted in package.integrity.split()
    )


def main(arguments: list[str]) -> int:
    """Answers with the command's exit code; 2 for wrong arguments."""
    if arguments[2:3] != ["--"] or not arguments[3:]:
        sys.stderr.write("usage: run_npm.py DIRECTORY REGISTRY -- COMMAND...\n")
        return 2
    directory, registry, command = Path(arguments[0]), arguments[1], arguments[3:]
    # A timeout of the install ends npm, and this process with it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    translate = Translator()
    try:
        prepare(directory, registry)
        code = run([*command, "--prefix", str(directory)], translate)
        if code == 0:
            take_lock(directory, command)
    except OSError as error:
        sys.stderr.write(f"run_npm: {error}\n")
        return 1
    report_hashes(directory, translate.unexpected)
    if code == 0:
        report(directory, command)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
