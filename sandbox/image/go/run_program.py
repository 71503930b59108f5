"""Builds a program of Go and becomes it, so that its exit code and signals are its own, which `go run` hides.

Usage: run_program.py (PACKAGE | FILE...) -- ARGUMENT...

The program lies in the user's cache, one for each package: unchanged, it is neither compiled nor linked again.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

GO = "/usr/local/bin/go"
SUFFIX = ".go"


def place_of(packages: list[str]) -> Path:
    """Where the program lies, which depends on what is built and where."""
    last = packages[-1].removesuffix(SUFFIX) if len(packages) == 1 else Path(packages[0]).stem
    name = Path(os.path.realpath(last)).name or "program"
    key = hashlib.sha256("\0".join([str(Path.cwd()), *packages]).encode("utf-8", "surrogateescape")).hexdigest()
    home = Path(os.environ.get("HOME", "/nonexistent"))
    directory = home / ".cache" / "go-programs" / key[:16]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        directory = Path(tempfile.mkdtemp(prefix="go-program-"))
    return directory / name


def build(packages: list[str], program: Path) -> int:
    """The exit code of `go build`, which reads nothing of the program's input and says nothing on its output."""
    command = [GO, "build", "-o", str(program), *packages]
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode  # noqa: S603


def main(arguments: list[str]) -> int:
    """Answers with an exit code only if the program could not be built or started."""
    if "--" not in arguments or not arguments[0] or arguments[0] == "--":
        sys.stderr.write("usage: run_program.py (PACKAGE | FILE...) -- ARGUMENT...\n")
        return 2
    split = arguments.index("--")
    packages, rest = arguments[:split], arguments[split + 1 :]
    program = place_of(packages)
    # Held until this process has become the program: another start may be writing the same file.
    with program.with_name("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code = build(packages, program)
        if not code:
            os.execv(program, [str(program), *rest])  # noqa: S606 -- the program is what is to run
        return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
