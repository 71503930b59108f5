"""Work that is shared, and turns that are taken: no sandbox holds up another."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from services.executor.egress.flights import Flights
from services.executor.egress.turns import Turn, Turns


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_work_is_done_once_for_all() -> None:
    flights: Flights[int] = Flights()
    begun = 0
    gate = asyncio.Event()

    async def work() -> int:
        nonlocal begun
        begun += 1
        await gate.wait()
        return begun

    waiting = [asyncio.create_task(flights.join("a", work)) for _ in range(3)]
    other = asyncio.create_task(flights.join("b", work))
    await settle()
    waiting[0].cancel()
    await settle()
    gate.set()
    assert await asyncio.gather(*waiting[1:], other) == [2, 2, 2]
    assert await flights.join("a", work) == 3


async def test_work_that_nobody_wants_is_dropped() -> None:
    flights: Flights[None] = Flights()
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("dropped")

    waiting = [asyncio.create_task(flights.join("a", work)) for _ in range(2)]
    await settle()
    waiting[0].cancel()
    await settle()
    assert ended == []
    waiting[1].cancel()
    await settle()
    assert ended == ["dropped"]


async def test_an_error_reaches_all_and_does_not_stay() -> None:
    flights: Flights[int] = Flights()

    async def fail() -> int:
        await asyncio.sleep(0)
        raise ValueError

    async def succeed() -> int:
        return 1

    assert all(isinstance(e, ValueError) for e in await asyncio.gather(
        *(flights.join("a", fail) for _ in range(3)), return_exceptions=True
    ))  # fmt: skip
    assert await flights.join("a", succeed) == 1


async def take(stack: AsyncExitStack, turns: Turns, sandbox: str) -> Turn:
    return await stack.enter_async_context(turns.take(sandbox))


async def test_one_sandbox_does_not_get_all_turns() -> None:
    turns = Turns()
    async with AsyncExitStack() as stack:
        greedy = [await take(stack, turns, "greedy") for _ in range(20)]
        fetching = [asyncio.create_task(turn.fetch()) for turn in greedy]
        await settle()
        assert sum(task.done() for task in fetching) == 8
        modest = await take(stack, turns, "modest")
        async with asyncio.timeout(1):
            await modest.fetch()
            # A request that asks for several pages has one turn for all of them.
            await asyncio.gather(*(modest.fetch() for _ in range(20)))
        await greedy[0].give_back()
        await settle()
        assert sum(task.done() for task in fetching) == 9
        for task in fetching:
            task.cancel()


async def test_few_large_pages_are_in_memory_at_once() -> None:
    turns = Turns()
    async with AsyncExitStack() as stack:
        parsing = []
        for number in range(6):
            turn = await take(stack, turns, f"sandbox {number}")
            await turn.parse(1000)
            parsing.append(asyncio.create_task(turn.parse(2 << 20)))
        await settle()
        assert sum(task.done() for task in parsing) == 4
        for task in parsing:
            task.cancel()


async def test_a_turn_that_fails_is_given_back() -> None:
    turns = Turns()

    async def fail() -> None:
        async with turns.take("one") as turn:
            await turn.fetch()
            raise ValueError("failed")

    for _ in range(30):
        async with asyncio.timeout(1):
            with pytest.raises(ValueError, match="failed"):
                await fail()
