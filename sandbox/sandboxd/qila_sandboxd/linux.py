"""What Linux offers and Python's library does not: prctl, capset, the process table, the memory group's counter."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import gc
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM_USER = 1000
INSTALL_USER = 1001
# Sees what programs see; no program may signal, trace or slow it.
OBSERVER = 1002
USERS = {"program": PROGRAM_USER, "install": INSTALL_USER}

_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_CAP_SETUID = 1 << 7
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_CAPABILITY_VERSION_3 = 0x20080522
_OWN_OOM_SCORE = Path("/proc/self/oom_score_adj")
_OOM_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def set_undumpable() -> None:
    """Nobody of another user may trace this process or read its memory; children that do not exec inherit it."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def drop_capabilities() -> None:
    """Give up every capability for good."""
    _set_capabilities(0)


def _set_capabilities(mask: int) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)(mask, mask)))


def become_observer() -> None:
    """Take the program's rights over files alone, and an id of its own for all else.

    The kernel also counts what is watched by this id, so that programs cannot use up what the host allows.
    """
    os.setgroups([PROGRAM_USER])
    os.setresgid(PROGRAM_USER, PROGRAM_USER, PROGRAM_USER)
    _check(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setresuid(OBSERVER, OBSERVER, OBSERVER)
    _set_capabilities(_CAP_SETUID)
    _libc.setfsuid(PROGRAM_USER)
    _set_capabilities(0)
    set_undumpable()
    if _libc.setfsuid(-1) != PROGRAM_USER:
        raise PermissionError(errno.EPERM, "the rights of the program's user cannot be had")


def rename(source: str, target: str, *, replace: bool) -> None:
    """Rename atomically; without `replace` only if nothing is at the target.

    Raises:
        OSError: EEXIST, if something is; or what else rename says.
    """
    flags = 0 if replace else _RENAME_NOREPLACE
    _check(_libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags))


def become(user: int) -> None:
    """Take the user's id, its own group alone, and umask 022. The capabilities go with the id."""
    os.setgroups([user])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    os.umask(0o022)


@contextlib.contextmanager
def files_of(user: int) -> Iterator[None]:
    """What is made meanwhile belongs to `user`; nobody else's rights over this process change."""
    _libc.setfsuid(user)
    try:
        if _libc.setfsuid(-1) != user:
            raise PermissionError(errno.EPERM, "this process may not make files of another user")
        yield
    finally:
        _libc.setfsuid(os.getuid())
        # As `set_undumpable` left it: a change of ids sets it back.
        set_undumpable()


def raise_oom_score(score: int) -> None:
    """Let the kernel choose this process before sandboxd's own when memory runs out."""
    if int(_OWN_OOM_SCORE.read_text()) < score:
        _OWN_OOM_SCORE.write_text(str(score))


def close_descriptors_except(keep: set[int]) -> None:
    """Close all descriptors of a freshly forked child but `keep` and the standard three."""
    # Objects of the parent still name these numbers: never collected, they cannot close what gets a number next.
    gc.freeze()
    for descriptor in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - numbers, not paths
        if descriptor > 2 and descriptor not in keep:  # noqa: PLR2004 - the standard three
            try:
                os.close(descriptor)
            except OSError:  # the listing's own descriptor is closed already
                continue


def read_oom_kills() -> int:
    """How many processes of this container the kernel has killed for memory; 0 if it does not say."""
    descriptor = _oom_counter()
    found = re.search(rb"^oom_kill (\d+)$", os.pread(descriptor, 4096, 0), re.MULTILINE) if descriptor >= 0 else None
    return int(found[1]) if found else 0


@functools.cache
def _oom_counter() -> int:
    """The counter's descriptor, kept open: it is read at each start and each end; -1 if there is none."""
    for counter in _OOM_COUNTERS:
        with contextlib.suppress(OSError):
            return os.open(counter, os.O_RDONLY | os.O_CLOEXEC)
    return -1


def _process_ids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - numbers


def processes_of_user(user: int) -> set[int]:
    """Every process whose real, effective or saved user is `user`."""
    wanted = str(user).encode()
    found = set()
    for process in _process_ids():
        try:
            with open(f"/proc/{process}/status", "rb") as file:  # noqa: PTH123 - Path costs a third of the scan
                status = file.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        line = re.search(rb"^Uid:\s*(.*)$", status, re.MULTILINE)
        if line and wanted in line[1].split()[:3]:
            found.add(process)
    return found
