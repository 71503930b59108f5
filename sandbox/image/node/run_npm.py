"""Runs npm in a directory, and says what it does in lines that people and Qila read.

Usage: run_npm.py DIRECTORY [FILE...] -- COMMAND...

Makes the directory, copies the files into it and runs the command with `--prefix DIRECTORY`. Of what npm prints, its
progress becomes `Looked up 25 packages`, `Downloading name@version`, `Building name@version` and `Built name@version`;
everything else is passed on. After an install comes `+ name@version` for each package of the directory's lock.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LINE_LIMIT = 64 * 1024
LOCK_LIMIT_BYTES = 64 * 1024 * 1024
LOOKED_UP_EACH = 25
HIDDEN = ("npm error Log files were not written", "npm warn Could not write error message to eresolve-report")
INTEGRITY = re.compile(r"npm error Integrity checksum failed .*wanted (?P<wanted>\S+) but got (?P<got>\S+).*")
PACKAGE = r"(?P<name>(?:@[A-Za-z0-9._~-]+/)?[A-Za-z0-9._~-]+)"
VERSION = r"(?P<version>[0-9A-Za-z.+-]+)"
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


def locked(directory: Path) -> list[Locked]:
    """The packages of a directory's lock."""
    path = directory / "package-lock.json"
    try:
        if path.stat().st_size > LOCK_LIMIT_BYTES:
            return []
        entries = json.loads(path.read_bytes())["packages"].items()
        found = {
            Locked(
                name=str(entry.get("name") or location.rpartition("node_modules/")[2]),
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


def lines(process: "subprocess.Popen[bytes]") -> Iterator[str]:
    """What a process prints; what is longer than a line should be comes in pieces."""
    assert process.stdout is not None
    while line := process.stdout.readline(LINE_LIMIT):
        yield line.decode("utf-8", "replace").rstrip("\r\n")


def say(line: str) -> None:
    """One line, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run(command: list[str], translate: Translator) -> int:
    """The exit code of a command whose lines are passed on; 128 and the signal's number if one ended it."""
    with subprocess.Popen(  # noqa: S603 -- the command is Qila's own
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        for line in lines(process):
            translated = translate(line)
            if translated is not None:
                say(translated)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def report(directory: Path, command: list[str]) -> None:
    """What was installed, and whose scripts did not run."""
    packages = [package for package in locked(directory) if package.is_there]
    labels = dict.fromkeys(f"{package.name}@{package.version}" for package in packages)
    for label in labels:
        say(f"+ {label}")
    skipped = sorted({f"{package.name}@{package.version}" for package in packages if package.has_scripts})
    if skipped and "--ignore-scripts" in command:
        say(f"Install scripts that did not run: {', '.join(skipped)}")


def report_hashes(directory: Path, unexpected: list[tuple[str, str]]) -> None:
    """Which package of the lock has other bytes in the registry: npm says the hashes alone."""
    for wanted, got in unexpected:
        for package in locked(directory):
            if wanted in package.integrity.split():
                say(f"lock: {package.name}@{package.version}: the lock says {wanted}, the registry has {got}")


def main(arguments: list[str]) -> int:
    """Answers with the command's exit code; 2 for wrong arguments."""
    if "--" not in arguments[1:-1]:
        sys.stderr.write("usage: run_npm.py DIRECTORY [FILE...] -- COMMAND...\n")
        return 2
    split = arguments.index("--")
    directory, files, command = Path(arguments[0]), arguments[1:split], arguments[split + 1 :]
    # A timeout of the install ends npm, and this process with it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, directory / Path(file).name)
    except OSError as error:
        sys.stderr.write(f"run_npm: {error}\n")
        return 1
    translate = Translator()
    code = run([*command, "--prefix", str(directory)], translate)
    report_hashes(directory, translate.unexpected)
    if code == 0 and files:
        report(directory, command)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
