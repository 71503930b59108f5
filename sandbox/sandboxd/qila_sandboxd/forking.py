"""Children of the first process: forked, never of a foreign program, gone by `_exit`."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from . import linux

if TYPE_CHECKING:
    from collections.abc import Callable


def fork(run: Callable[[], None], keep: set[int]) -> int:
    """Start a child that does `run` with the descriptors `keep` alone, and return its process id.

    Raises:
        OSError: no process is left (EAGAIN, at the container's limit) or no memory.
    """
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        linux.close_descriptors_except(keep)
        run()
        code = 0
    finally:
        os._exit(code)
