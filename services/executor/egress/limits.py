"""What one sandbox may take through the doors: bytes a day, and bytes a second."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

DAY_SECONDS = 86_400.0
# The rule in the record of what was refused or cut because the bytes of the day are spent.
BYTES_RULE = "limit: bytes"
# So much of the rate may be saved up and then be taken at once.
_BURST_SECONDS = 1.0


class AllowanceSpent(Exception):
    """The sandbox has had the bytes of its day; the caller must not send another one."""


@dataclass(frozen=True, kw_only=True)
class TrafficLimits:
    """The operator's limits for each sandbox; 0 for none."""

    bytes_per_day: int = 0
    bytes_per_second: int = 0


NO_LIMITS = TrafficLimits()


class Allowance:
    """What is left for one sandbox. Its days are 24 hours long and begin with the first byte; they are forgotten when
    the doors are started again.
    """  # noqa: D205 - one sentence after another

    def __init__(
        self,
        limits: TrafficLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._sleep = sleep
        self._day_began = 0.0
        self._spent = 0
        self._free_at = 0.0

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left of the day."""
        self._turn_day()
        return 0 < self._limits.bytes_per_day <= self._spent

    async def spend(self, count: int) -> None:
        """Account for `count` bytes that are about to be sent, and wait until the rate lets them through.

        Raises:
            AllowanceSpent: they are more than is left of the day, which counts as spent from now on.
        """
        self._turn_day()
        if 0 < self._limits.bytes_per_day < self._spent + count:
            self._spent = self._limits.bytes_per_day
            raise AllowanceSpent
        self._spent += count
        if self._limits.bytes_per_second:
            now = self._clock()
            # Each waits for all that was let through before it, so that many streams together keep the rate.
            self._free_at = max(self._free_at, now - _BURST_SECONDS) + count / self._limits.bytes_per_second
            if self._free_at > now:
                await self._sleep(self._free_at - now)

    def _turn_day(self) -> None:
        now = self._clock()
        if not self._spent or now - self._day_began >= DAY_SECONDS:
            self._day_began, self._spent = now, 0
