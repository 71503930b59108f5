"""Giving up root for good, before the first hostile byte is read."""

import ctypes
import os
import resource

_PR_SET_NO_NEW_PRIVS = 38
_MAX_OPEN_FILES = 65536


def drop_privileges(*, uid: int, gid: int) -> None:
    """Become `uid` and `gid`, without groups, without a way back, without core dumps.

    Raises:
        OSError: the kernel refuses; the caller must not go on.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
