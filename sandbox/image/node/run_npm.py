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
from pathlib import Path

LINE_LIMIT = 64 * 1024
LOCK_LIMIT_BYTES = 64 * 1024 * 1024
LOOKED_UP_EACH = 25
PACKAGE = r"(?P<name>(?:@[A-Za-z0-9._~-]+/)?[A-Za-z0-9._~-]+)"
VERSION = r"(?P<version>[0-9A-Za-z.+-]+)"
LOOK_UP = re.compile(rf"npm http fetch GET \d+ \S+/npm/{PACKAGE} .*")
TARBALL = re.compile(rf"npm http fetch GET 200 \S+/npm/{PACKAGE}/-/(?P<file>[^/ ]+)\.tgz .*")
SCRIPT = re.compile(rf"npm info run {PACKAGE}@{VERSION} (?:pre|post)?install (?P<rest>.*)")
# What npm says to those who look for its own faults.
CHATTER = ("npm info ", "npm http ", "npm verbose ")


class Translator:
    """Turns npm's lines into ours, one at a time."""

    def __init__(self) -> None:
        self._looked_up = 0

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
        return None if line.startswith(CHATTER) else line

    def _downloading(self, name: str, file: str) -> str:
        version = file.removeprefix(f"{name.rpartition('/')[2]}-")
        return f"Downloading {name}@{version}"


def locked(directory: Path) -> list[tuple[str, str, bool]]:
    """Name, version and whether it has install scripts, of each package that lies in the directory by its lock."""
    path = directory / "package-lock.json"
    try:
        if path.stat().st_size > LOCK_LIMIT_BYTES:
            return []
        entries = json.loads(path.read_bytes())["packages"].items()
        found = {
            (
                str(entry.get("name") or location.rpartition("node_modules/")[2]),
                str(entry["version"]),
                entry.get("hasInstallScript") is True,
            )
            for location, entry in entries
            if location and (directory / location / "package.json").is_file()
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


def run(command: list[str]) -> int:
    """The exit code of a command whose lines are passed on; 128 and the signal's number if one ended it."""
    translate = Translator()
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
    packages = locked(directory)
    for name, version, _ in packages:
        say(f"+ {name}@{version}")
    skipped = [f"{name}@{version}" for name, version, scripts in packages if scripts]
    if skipped and "--ignore-scripts" in command:
        say(f"Install scripts that did not run: {', '.join(skipped)}")


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
    code = run([*command, "--prefix", str(directory)])
    if code == 0 and files:
        report(directory, command)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
