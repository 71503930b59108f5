"""What a program of a sandbox finds: run by the executor in a container of its own, before it serves.

Usage: python3 -I -S -c SOURCE QUESTIONS, where QUESTIONS is a JSON object: `masked`, `read_only` and `tmpfs` are lists
of paths, `sockets` is a path, `calls` are lists of name, number by machine and first argument, `families` lists of
name, family, type and protocol. The answer is one JSON object on standard output. It judges nothing.
"""

import ctypes
import errno
import json
import os
import platform
import resource
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTROL_GROUP_FILES = (
    "cpu.max",
    "memory.max",
    "memory.swap.max",
    "pids.max",
    "cpu/cpu.cfs_period_us",
    "cpu/cpu.cfs_quota_us",
    "memory/memory.limit_in_bytes",
    "memory/memory.memsw.limit_in_bytes",
    "pids/pids.max",
)
NAMESERVER_PORT = 53


def read(path: str) -> str:
    """The file as text; empty if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def words(path: str) -> list[list[str]]:
    """The words of each line that is no comment."""
    return [line.split() for line in read(path).splitlines() if line.strip() and line[0] not in "#;"]


def status() -> dict[str, str]:
    """The rights that /proc/self/status tells of."""
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    rows = [line.partition(":") for line in read("/proc/self/status").splitlines()]
    return {name: value.strip() for name, _, value in rows if name in names}


def mounts() -> list[Any]:
    """Every mount as [point, root within its file system, type, options]."""
    rows = []
    for line in read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        rows.append([fields[4], fields[3], right.split()[0], fields[5].split(",")])
    return rows


def can_write(path: str) -> bool:
    """Whether something can be made in the directory, or the file be opened for writing."""
    try:
        kind = Path(path).stat().st_mode
        if stat.S_ISREG(kind):
            os.close(os.open(path, os.O_WRONLY))
        elif stat.S_ISDIR(kind):
            new = Path(path) / f"qila-probe-{os.getpid()}"
            os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            new.unlink()
        else:
            return False
    except OSError:
        return False
    return True


def content(path: str) -> str:
    """What a masked path shows: `absent`, `empty`, `content`, or `refused` to this user."""
    try:
        if Path(path).is_dir():
            return "content" if any(Path(path).iterdir()) else "empty"
        with Path(path).open("rb") as file:
            return "content" if file.read(1) else "empty"
    except FileNotFoundError:
        return "absent"
    except OSError:
        return "refused"


def is_read_only(path: str) -> bool:
    """True too of a path that is not there."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return True


def space(path: str) -> list[int]:
    """Bytes and inodes of the file system at a path; none if it is not there."""
    try:
        found = os.statvfs(path)
    except OSError:
        return [0, 0]
    return [found.f_frsize * found.f_blocks, found.f_files]


def error_of(action: Callable[..., object], *arguments: object) -> str:
    """The name of the error that an action ends with, or `OK`."""
    try:
        action(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return "OK"


def make_call(number: int, first: int) -> None:
    """Makes a system call by its number."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(ctypes.c_long(number), ctypes.c_long(first), *[ctypes.c_long(0)] * 5) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def make_socket(family: int, kind: int, protocol: int) -> None:
    """Makes a socket and closes it."""
    socket.socket(family, kind, protocol).close()


def connect(path: str) -> None:
    """Dials a unix socket."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(path)


def bind_nameserver_port() -> None:
    """Takes the port on which names are asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stream:
        stream.bind(("127.0.0.1", NAMESERVER_PORT))


def open_and_close(path: Path) -> None:
    """Opens a file for reading."""
    os.close(os.open(path, os.O_RDONLY))


def readable_of_first_process() -> list[str]:
    """What of the first process can be read."""
    looks: dict[str, Callable[..., object]] = {
        "auxv": open_and_close,
        "cwd": os.readlink,
        "environ": open_and_close,
        "exe": os.readlink,
        "fd": os.listdir,
        "maps": open_and_close,
        "mem": open_and_close,
        "root": os.readlink,
    }
    return [name for name, look in looks.items() if error_of(look, Path("/proc/1") / name) == "OK"]


def devices() -> list[str]:
    """Names of the device nodes in /dev."""
    kinds = {path.name: path.lstat().st_mode for path in Path("/dev").iterdir()}
    return sorted(name for name, kind in kinds.items() if stat.S_ISCHR(kind) or stat.S_ISBLK(kind))


def interfaces() -> list[str]:
    """Names of the network interfaces, as two sources give them."""
    listed = [line.partition(":")[0].strip() for line in read("/proc/net/dev").splitlines()[2:]]
    return sorted({*listed, *(name for _, name in socket.if_nameindex())})


def calls(questions: dict[str, Any]) -> dict[str, str]:
    """How each call ends."""
    machine = platform.machine()
    answers = {name: error_of(make_call, numbers[machine], first) for name, numbers, first in questions["calls"]}
    return answers | {name: error_of(make_socket, *row) for name, *row in questions["families"]}


def control_groups() -> dict[str, str]:
    """The limits as the control groups' files give them, where they are."""
    texts = {name: read(f"/sys/fs/cgroup/{name}").strip() for name in CONTROL_GROUP_FILES}
    return {name: text for name, text in texts.items() if text}


def report(questions: dict[str, Any]) -> dict[str, Any]:
    """Everything."""
    found = mounts()
    return {
        "user": list(os.getresuid()),
        "group": list(os.getresgid()),
        "groups": os.getgroups(),
        "status": status(),
        "interfaces": interfaces(),
        "mounts": found,
        "space": {path: space(path) for path in questions["tmpfs"]},
        "writable": sorted({point for point, *_ in found if can_write(point)}),
        "masked": {path: content(path) for path in questions["masked"]},
        "read_only": {path: is_read_only(path) for path in questions["read_only"]},
        "nofile": list(resource.getrlimit(resource.RLIMIT_NOFILE)),
        "core": list(resource.getrlimit(resource.RLIMIT_CORE)),
        "control_groups": control_groups(),
        "swap_total": sum(int(row[1]) for row in words("/proc/meminfo") if row[0] == "SwapTotal:"),
        "hostname": socket.gethostname(),
        "nameservers": [row[1] for row in words("/etc/resolv.conf") if row[0] == "nameserver"],
        "hosts": [row[0] for row in words("/etc/hosts")],
        "nameserver_port": error_of(bind_nameserver_port),
        "control_socket": error_of(connect, f"{questions['sockets']}/control.sock"),
        "first_process": readable_of_first_process(),
        "devices": devices(),
        "calls": calls(questions),
        "environment": dict(os.environ),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(report(json.loads(sys.argv[1]))))
