"""Solves and installs the modules of a go.mod into an environment, and says what it does in lines that Qila reads.

Usage: install_modules.py solve ENVIRONMENT DIRECTORY (--tidy | --locked | --keep) [--go VERSION] [--get SPEC]...
       install_modules.py install ENVIRONMENT DIRECTORY WORKSPACE-DIRECTORY LOCK

DIRECTORY, below the working directory, holds a go.mod, perhaps a go.sum, and a package that imports what the program
does. `solve` completes the two files: `--tidy` as `go mod tidy` does, `--locked` only where they do not say all that
the package needs, and `--keep` without another version than they have. `install` brings the modules that go.mod
requires into ENVIRONMENT/mod, and writes ENVIRONMENT/go.mod, go.sum, overlay.json (by which the go command finds these
two in place of those in WORKSPACE-DIRECTORY), graph.txt, and LOCK, the two files as one text archive.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

GO = "/usr/lib/qila/go/bin/go"
# What the go command says where go.mod or go.sum do not hold all that is needed.
INCOMPLETE = re.compile(
    rb"missing go\.sum entry|updates to go\.(?:mod|sum) needed|no required module provides package|go mod tidy"
    rb"|missing module for import|is replaced but not required|existing contents have changed|is explicitly required"
)
GRAPH_LIMIT_BYTES = 32 * 1024 * 1024


class Failed(Exception):
    """A command that failed, and what it said; its exit code is the program's."""

    def __init__(self, code: int, words: bytes = b"") -> None:
        super().__init__(code)
        self.code, self.words = code, words


class Go:
    """The go command, in one module, with its module cache in the environment."""

    def __init__(self, directory: Path, environment: Path, scratch: str) -> None:
        self._directory = directory
        self._environment = {
            **os.environ,
            "GOMODCACHE": str(environment / "mod"),
            "GOCACHE": scratch,
            "GOENV": "off",
            "GOWORK": "off",
            "GOTOOLCHAIN": "local",
            "GOTELEMETRY": "off",
        }

    def run(self, *arguments: str, flags: str = "", quietly: bool = False) -> bytes:
        """What a command prints. Its complaints are passed on; `quietly`, they are kept for the caller instead.

        Raises Failed.
        """
        process = subprocess.run(  # noqa: S603 -- the arguments are Qila's
            [GO, *arguments],
            cwd=self._directory,
            env=self._environment | {"GOFLAGS": f"-modcacherw {flags}".strip()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if quietly else None,
            check=False,
        )
        if process.returncode:
            raise Failed(process.returncode, process.stderr or b"")
        return process.stdout

    def installed(self) -> list[tuple[str, str]]:
        """The modules that stand behind these: what replaces one counts, and a directory is none."""
        document = json.loads(self.run("mod", "edit", "-json"))
        replaced = {
            (item["Old"]["Path"], item["Old"].get("Version", "")): (item["New"]["Path"], item["New"].get("Version", ""))
            for item in document.get("Replace") or ()
        }
        found = []
        for item in document.get("Require") or ():
            own = (item["Path"], item["Version"])
            new = replaced.get(own) or replaced.get((own[0], "")) or own
            if new[1]:
                found.append(new)
        return sorted(set(found))


def say(line: str) -> None:
    """One line, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def solve(go: Go, options: argparse.Namespace) -> None:
    """Completes go.mod and go.sum."""
    tidy = ["mod", "tidy", *([f"-go={options.go}"] if options.go else [])]
    if options.keep:
        keep(go)
    elif options.tidy:
        go.run(*tidy)
    else:
        try:
            go.run("list", "-deps", ".", flags="-mod=readonly", quietly=True)
        except Failed as failure:
            if not INCOMPLETE.search(failure.words):
                sys.stderr.buffer.write(failure.words)
                raise
            say("go.mod and go.sum do not say all that the program needs: go mod tidy completes a copy of them")
            go.run(*tidy)
    if options.get:
        go.run("get", *options.get)


def keep(go: Go) -> None:
    """Completes what a lock leaves out, which is the hashes of go.mod files; its versions stay or it is refused."""
    before = dict(go.installed())
    go.run("list", "-deps", ".", flags="-mod=mod")
    go.run("mod", "graph", flags="-mod=mod")
    for path, version in go.installed():
        if path not in before:
            sys.stderr.write(f"lock: {path} {version}: is not in the lock, and the program or its modules need it\n")
            raise Failed(1)
        if before[path] != version:
            sys.stderr.write(f"lock: {path} {before[path]}: the other modules of the lock need {version}\n")
            raise Failed(1)


def install(go: Go, options: argparse.Namespace) -> None:
    """Brings the modules that go.mod requires into the environment, and no others."""
    environment, directory = Path(options.environment), Path(options.directory)
    modules = go.installed()
    say(f"Installing {len(modules)} modules")
    go.run("mod", "download")
    graph = go.run("mod", "graph")
    (environment / "mod").mkdir(parents=True, exist_ok=True)
    (environment / "graph.txt").write_bytes(graph[:GRAPH_LIMIT_BYTES])
    wanted = {(escape(path), escape(version)) for path, version in modules}
    prune(environment / "mod", wanted)
    mod_file = (directory / "go.mod").read_text()
    sums = kept_sums(directory / "go.sum", modules)
    (environment / "go.mod").write_text(mod_file)
    (environment / "go.sum").write_text(sums)
    workspace = Path("/sandbox", options.workspace_directory)
    overlay = {str(workspace / name): str(environment / name) for name in ("go.mod", "go.sum")}
    (environment / "overlay.json").write_text(json.dumps({"Replace": overlay}, sort_keys=True) + "\n")
    Path(options.lock).write_text(f"-- go.mod --\n{ended(mod_file)}-- go.sum --\n{sums}")
    for path, version in modules:
        say(f"+ {path} {version}")


def ended(text: str) -> str:
    """A text that ends with the end of a line."""
    return text if text.endswith("\n") or not text else f"{text}\n"


def kept_sums(path: Path, modules: list[tuple[str, str]]) -> str:
    """The lines of a go.sum, but those of archives that are not installed."""
    lines = sorted(set(path.read_text().splitlines())) if path.exists() else []
    there = {f"{module} {version}" for module, version in modules}
    kept = [line for line in lines if "/go.mod h1:" in line or line.rpartition(" ")[0] in there]
    return "".join(f"{line}\n" for line in kept if line.strip())


def prune(cache: Path, wanted: set[tuple[str, str]]) -> None:
    """Removes what the solve looked at and nothing needs, and the archives of what is unpacked."""
    downloads = cache / "cache" / "download"
    for record in downloads.rglob("*.ziphash"):
        path = str(record.parent.parent.relative_to(downloads))
        version = record.name.removesuffix(".ziphash")
        if (path, version) not in wanted:
            shutil.rmtree(cache / f"{path}@{version}", ignore_errors=True)
            record.unlink()
        record.with_suffix(".zip").unlink(missing_ok=True)
        record.with_suffix(".lock").unlink(missing_ok=True)


def escape(text: str) -> str:
    """A path or version as the module cache spells it: capitals behind an exclamation mark."""
    return re.sub(r"[A-Z]", lambda match: f"!{match[0].lower()}", text)


def read_arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("solve", "install"):
        command = commands.add_parser(name)
        command.add_argument("environment")
        command.add_argument("directory")
        if name == "solve":
            how = command.add_mutually_exclusive_group(required=True)
            for option in ("--tidy", "--locked", "--keep"):
                how.add_argument(option, action="store_true")
            command.add_argument("--go", default="")
            command.add_argument("--get", action="append", default=[])
        else:
            command.add_argument("workspace_directory")
            command.add_argument("lock")
    return parser.parse_args()


def main() -> int:
    """Answers with an exit code: 0 done, else that of the command that failed."""
    options = read_arguments()
    Path(options.environment).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="go-solve-") as scratch:
        go = Go(Path(options.directory), Path(options.environment), scratch)
        try:
            solve(go, options) if options.command == "solve" else install(go, options)
        except Failed as failure:
            return failure.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
