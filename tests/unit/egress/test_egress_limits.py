"""Bytes a day and bytes a second, with a clock and a sleep that a test turns."""

import asyncio

import pytest

from services.executor.egress.limits import DAY_SECONDS, Allowance, AllowanceSpent, TrafficLimits


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def allowance(self, **limits: int) -> Allowance:
        return Allowance(TrafficLimits(**limits), clock=self, sleep=self.sleep)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_a_day_s_bytes_are_never_exceeded(clock: Clock) -> None:
    allowance = clock.allowance(bytes_per_day=100)
    await allowance.spend(60)
    await allowance.spend(40)
    assert allowance.is_spent
    with pytest.raises(AllowanceSpent):
        await allowance.spend(1)
    clock.now += DAY_SECONDS
    assert not allowance.is_spent
    await allowance.spend(100)


async def test_what_does_not_fit_ends_the_day(clock: Clock) -> None:
    allowance = clock.allowance(bytes_per_day=100)
    await allowance.spend(60)
    with pytest.raises(AllowanceSpent):
        await allowance.spend(41)
    # Else a client would be cut off again and again, and never be told why.
    assert allowance.is_spent


async def test_without_limits_nothing_waits(clock: Clock) -> None:
    allowance = clock.allowance()
    await allowance.spend(1 << 60)
    assert (allowance.is_spent, clock.slept) == (False, [])


async def test_many_streams_together_keep_the_rate(clock: Clock) -> None:
    allowance = clock.allowance(bytes_per_second=100)
    # The first second's worth is free; each stream then waits for all that was let through before it.
    await asyncio.gather(*(allowance.spend(100) for _ in range(4)))
    assert clock.slept == [1.0, 2.0, 3.0]
    clock.now += 3.0
    await allowance.spend(50)
    assert clock.slept[3:] == [0.5]
    clock.now += 100.0
    await allowance.spend(100)
    await allowance.spend(1)
    assert clock.slept[4:] == [pytest.approx(0.01)]
