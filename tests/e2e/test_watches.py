"""Watches of files through all three services, while programs do what they like."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Installation  # type: ignore[import-not-found]  # pytest puts this directory on the path

from qila.client import Client, FileWatch, Resync
from qila.gateway.v1 import gateway_pb2 as pb

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

# Whatever one does to trees, thousands of times; the names repeat, so that much of it meets.
BUSY = r"""
import os, random, shutil, sys
choose = random.Random(int(sys.argv[1]))
os.chdir('/sandbox/tree')
places = ['.', *(f'd{n}' for n in range(8)), *(f'd{n}/sub' for n in range(8))]
names = ['sub', 'file', 'other', *(f'd{n}' for n in range(8))]
for _ in range(int(sys.argv[2])):
    one = f'{choose.choice(places)}/{choose.choice(names)}'
    other = f'{choose.choice(places)}/{choose.choice(names)}'
    try:
        match choose.randrange(7):
            case 0: open(one, 'w').write('x' * choose.randrange(99))
            case 1: os.mkdir(one)
            case 2: shutil.rmtree(one) if os.path.isdir(one) and not os.path.islink(one) else os.unlink(one)
            case 3: os.symlink('/etc', one)
            case 4: os.chmod(one, choose.choice([0o644, 0o755]))
            case _: os.rename(one, other)
    except OSError:
        pass
"""
# Far more than may be under way, and than waits to be looked at.
FLOOD = r"""
import os
os.chdir('/sandbox/flood')
names = [f'{number}-{"x" * 200}' for number in range(40_000)]
for name in names:
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
for name in names:
    os.unlink(name)
print(len(names))
"""
STORM = r"""
import os
os.makedirs('/sandbox/storm/a/deep/deeper')
for number in range(300):
    open(f'/sandbox/storm/a/deep/f{number}', 'w').close()
os.chdir('/sandbox/storm')
for number in range(3000):
    os.rename('a', 'b')
    os.rename('b', 'a')
os.rename('a', 'end')
"""
MEMORY = r"""
import os
for pid in filter(str.isdigit, os.listdir('/proc')):
    status = open(f'/proc/{pid}/status').read()
    if status.split('Uid:')[1].split()[0] == '1002':
        print(status.split('VmRSS:')[1].split()[0])
"""
CLOSED = r"""
import os
os.makedirs('/sandbox/tree/closed', exist_ok=True)
os.chmod('/sandbox/tree/closed', 0)
"""
OPENED = r"""
import os
os.chmod('/sandbox/tree/closed', 0o755)
open('/sandbox/tree/closed/inside', 'w').close()
"""
Entry = tuple[int, int, int, bool]


@pytest.fixture
def client(installation: Installation) -> Iterator[Client]:
    with Client(installation.variables["QILA_GATEWAY_ADDRESS"]) as opened:
        yield opened


def run(client: Client, sandbox: str, script: str, *arguments: object) -> str:
    """Runs a script in the sandbox; what it printed."""
    result = client.exec(sandbox, ["python3", "-c", script, *map(str, arguments)]).communicate()
    assert result.exit_code == 0, result.stderr
    return result.stdout.decode()


def listed(client: Client, sandbox: str, path: str) -> dict[str, Entry]:
    """What a list says; of directories, that they are there."""
    files = client.ls(sandbox, path, depth=64)
    return {file.name: entry(file.kind, file.size, file.mtime_ns, executable=file.executable) for file in files}


def entry(kind: int, size: int, mtime_ns: int, *, executable: bool) -> Entry:
    return (kind, 0, 0, False) if kind == pb.FILE_KIND_DIRECTORY else (kind, size, mtime_ns, executable)


class Copy:
    """What somebody knows who lists when the watch is ready, and then takes over each change."""

    def __init__(self, client: Client, sandbox: str, path: str) -> None:
        self._place = (client, sandbox, path)
        self.entries = listed(*self._place)
        self.resyncs = 0

    def follow(self, watch: FileWatch) -> None:
        """Takes over all that has happened by now: behind a first sign comes what is told together with it."""
        self._follow_to_sign(watch)
        self._follow_to_sign(watch)

    def _follow_to_sign(self, watch: FileWatch) -> None:
        client, sandbox, path = self._place
        sign = f"sign-{os.urandom(4).hex()}"
        client.mkdir(sandbox, f"{path}/{sign}")
        for event in watch:
            if isinstance(event, Resync):
                self.resyncs += 1
                self.entries = listed(*self._place)
                if sign in self.entries:
                    return
                continue
            self._apply(event)
            if event.path == sign:
                return

    def _apply(self, change: pb.FileChange) -> None:
        if change.kind == pb.FILE_CHANGE_KIND_REMOVED:
            del self.entries[change.path]
            return
        if change.kind == pb.FILE_CHANGE_KIND_MOVED:
            del self.entries[change.from_path]
        if change.kind == pb.FILE_CHANGE_KIND_CREATED:
            assert change.path not in self.entries
        kind, size, mtime_ns = change.file_kind, change.size, change.mtime_ns
        self.entries[change.path] = entry(kind, size, mtime_ns, executable=change.executable)


def test_whatever_a_program_does_to_a_tree_the_copy_ends_as_the_list(client: Client, sandbox: str) -> None:
    client.mkdir(sandbox, "tree")
    with client.watch(sandbox, "tree") as watch:
        copy = Copy(client, sandbox, "tree")
        running = [client.exec(sandbox, ["python3", "-c", BUSY, str(seed), "4000"]).start() for seed in range(3)]
        for one in running:
            copy.follow(watch)
            assert one.communicate().exit_code == 0
        copy.follow(watch)
        assert copy.resyncs == 0
        assert copy.entries == listed(client, sandbox, "tree")
        assert len(copy.entries) > 10


def test_a_directory_that_was_closed_is_read_when_it_is_opened(client: Client, sandbox: str) -> None:
    run(client, sandbox, CLOSED)
    with client.watch(sandbox, "tree") as watch:
        copy = Copy(client, sandbox, "tree")
        run(client, sandbox, OPENED)
        copy.follow(watch)
        assert copy.entries == listed(client, sandbox, "tree")
        assert "closed/inside" in copy.entries


def test_a_flood_that_nobody_reads_keeps_memory_flat_and_ends_in_a_resync(client: Client, sandbox: str) -> None:
    client.mkdir(sandbox, "flood")
    with client.watch(sandbox, "flood") as watch:
        copy = Copy(client, sandbox, "flood")
        before = int(run(client, sandbox, MEMORY))
        made = int(run(client, sandbox, FLOOD))
        after = int(run(client, sandbox, MEMORY))
        print(f"flood of {made} files: the watcher grew from {before} to {after} KiB")  # noqa: T201 - a figure worth seeing
        assert after - before < 48 << 10
        copy.follow(watch)
        assert copy.resyncs > 0
        assert copy.entries == listed(client, sandbox, "flood")


def test_a_storm_of_renames_ends_as_the_list(client: Client, sandbox: str) -> None:
    client.mkdir(sandbox, "storm")
    with client.watch(sandbox, "storm") as watch:
        copy = Copy(client, sandbox, "storm")
        run(client, sandbox, STORM)
        copy.follow(watch)
        assert copy.entries == listed(client, sandbox, "storm")
        assert len([path for path in copy.entries if path.startswith("end/deep/")]) == 301


def test_the_command_prints_changes_until_the_sandbox_is_removed(installation: Installation, tmp_path: Path) -> None:
    made = installation.qila("create").stdout.decode().strip()
    command = [sys.executable, "-m", "qila.cli", "watch", "--json", made]
    with subprocess.Popen(command, env=installation.variables, cwd=ROOT, stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline()) == {"ready": {}}
        (tmp_path / "a.txt").write_text("four")
        assert installation.qila("put", made, str(tmp_path / "a.txt")).returncode == 0
        change = json.loads(watching.stdout.readline())["change"]
        assert (change["kind"], change["path"], change["size"]) == ("FILE_CHANGE_KIND_CREATED", "a.txt", "4")
        assert installation.qila("rm", made).returncode == 0
        assert json.loads(watching.stdout.readline()) == {"ended": {"reason": "WATCH_END_REASON_SANDBOX_REMOVED"}}
        assert watching.wait(30) == 125


def test_an_interrupt_ends_the_command(installation: Installation, sandbox: str) -> None:
    command = [sys.executable, "-m", "qila.cli", "watch", "--json", sandbox]
    with subprocess.Popen(command, env=installation.variables, cwd=ROOT, stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 130
