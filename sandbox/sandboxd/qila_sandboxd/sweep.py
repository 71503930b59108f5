"""The stop-sweep: kill a changing set of processes until two looks find none. It forks nothing."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOKS = 2
# A fork bomb that outruns the stopping is killed in rounds.
_MAXIMUM_STOP_ROUNDS = 100
_PAUSE_SECONDS = 0.001


def sweep(find: Callable[[], set[int]], reap: Callable[[], None], seconds: float) -> tuple[int, bool]:
    """Stop, then kill whatever `find` returns, until it returns nothing twice.

    Args:
        find: the processes that shall go, as they are now.
        reap: collects ended children of the caller, without waiting.
        seconds: when to give up.

    Returns:
        How many were killed, and whether none is left.
    """
    deadline = time.monotonic() + seconds
    killed: set[int] = set()
    empty_looks = 0
    while empty_looks < _LOOKS:
        targets = _stop(find)
        if not targets:
            empty_looks += 1
            continue
        empty_looks = 0
        for process in targets:
            _signal(process, signal.SIGKILL)
        killed |= targets
        reap()
        if time.monotonic() > deadline:
            return len(killed), False
        # The kernel needs a moment to take them down.
        time.sleep(_PAUSE_SECONDS)
        reap()
    return len(killed), True


def _stop(find: Callable[[], set[int]]) -> set[int]:
    """Stop everything that `find` returns until two looks show nothing new: what stands still cannot fork."""
    stopped: set[int] = set()
    quiet_looks = 0
    for _ in range(_MAXIMUM_STOP_ROUNDS):
        new = find() - stopped
        for process in new:
            _signal(process, signal.SIGSTOP)
        stopped |= new
        quiet_looks = 0 if new else quiet_looks + 1
        if quiet_looks == _LOOKS:
            break
    return stopped


def _signal(process: int, number: signal.Signals) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return
