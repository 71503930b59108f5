from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

import pytest

from qila.executor.v1 import executor_pb2 as pb
from services.executor.errors import (
    InvalidFieldError,
    ProcessEndedError,
    ProtocolError,
    StdinEndedError,
    StdinGapError,
    StdinTakenOverError,
)
from services.executor.process_wire import write_stdin
from services.executor.stdin import MAX_WAITING_BYTES, Stdin, StdinWriter

CHUNK = 64 << 10


class Sandboxd:
    """Takes what is sent, as far as its window goes, and tells only when it is asked to."""

    def __init__(self, room: int = MAX_WAITING_BYTES) -> None:
        self.stdin = Stdin()
        self.room = room
        self.data = bytearray()
        self.ended = False
        self.frames = 0

    def send(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        assert header["type"] == "input"
        assert header["offset"] <= len(self.data)
        self.frames += 1
        self.data += payload[len(self.data) - header["offset"] :]
        self.ended = self.ended or header.get("end", False)

    def state(self) -> dict[str, Any]:
        return {"accepted": len(self.data), "window": len(self.data) + self.room, "ended": self.ended}

    def writer(self, *, hangs_up: bool = True) -> StdinWriter:
        return StdinWriter("p", self.stdin, self.send, hangs_up=hangs_up)


@pytest.fixture
async def sandboxd() -> Sandboxd:
    made = Sandboxd()
    made.stdin.tell(made.state())
    return made


async def waits(work: Awaitable[Any]) -> asyncio.Task[Any]:
    """Work under way, as far as it comes by itself."""
    task = asyncio.ensure_future(work)
    for _ in range(30):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def written(writer: StdinWriter, offset: int, data: bytes) -> int:
    """Until sandboxd has it."""
    await writer.write(offset, data)
    return await writer.acknowledged(offset + len(data) - 1)


async def test_nothing_is_acknowledged_before_sandboxd_has_it(sandboxd: Sandboxd) -> None:
    writer = sandboxd.writer()
    assert await writer.begin() == 0
    writing = await waits(written(writer, 0, b"abc"))
    sandboxd.stdin.tell(sandboxd.state())
    assert await writing == 3
    assert bytes(sandboxd.data) == b"abc"


async def test_the_first_answer_waits_for_the_process() -> None:
    sandboxd = Sandboxd()
    beginning = await waits(sandboxd.writer().begin())
    sandboxd.stdin.tell(sandboxd.state())
    assert await beginning == 0


async def test_without_room_nothing_is_sent() -> None:
    sandboxd = Sandboxd(room=4)
    sandboxd.stdin.tell(sandboxd.state())
    writing = await waits(written(sandboxd.writer(), 0, b"abcdef"))
    sandboxd.room = 0
    sandboxd.stdin.tell(sandboxd.state())
    for _ in range(5):
        await asyncio.sleep(0)
    assert (bytes(sandboxd.data), sandboxd.frames) == (b"abcd", 1)
    sandboxd.room = 10
    sandboxd.stdin.tell(sandboxd.state())
    for _ in range(5):
        await asyncio.sleep(0)
    sandboxd.stdin.tell(sandboxd.state())
    assert await writing == 6
    assert bytes(sandboxd.data) == b"abcdef"


async def test_a_writer_that_takes_over_hears_of_an_end_that_is_on_its_way(sandboxd: Sandboxd) -> None:
    """Bytes sent behind it would break the protocol, again after every connection."""
    ending = await waits(sandboxd.writer().end(0))
    second = sandboxd.writer()
    beginning = await waits(second.begin())
    with pytest.raises(StdinTakenOverError):
        await ending
    sandboxd.stdin.tell(sandboxd.state())
    assert await beginning == 0
    with pytest.raises(StdinEndedError):
        await second.write(0, b"x")
    assert sandboxd.frames == 1


@pytest.mark.parametrize("arrived", [True, False])
async def test_what_was_on_its_way_when_the_connection_broke_comes_once(sandboxd: Sandboxd, *, arrived: bool) -> None:
    writing = await waits(written(sandboxd.writer(), 0, b"abc"))
    sandboxd.stdin.disconnect()
    if not arrived:
        sandboxd.data.clear()
    sandboxd.stdin.resume(sandboxd.state())
    for _ in range(5):
        await asyncio.sleep(0)
    if not arrived:
        sandboxd.stdin.tell(sandboxd.state())
    assert await writing == 3
    assert (bytes(sandboxd.data), sandboxd.frames) == (b"abc", 1 if arrived else 2)


async def test_what_comes_is_sent_before_what_came_is_acknowledged_and_again_if_it_was_lost(sandboxd: Sandboxd) -> None:
    data = random.Random(1).randbytes(MAX_WAITING_BYTES)
    writer = sandboxd.writer()
    await writer.begin()
    for start in range(0, len(data) - 1, CHUNK):
        writing = asyncio.ensure_future(writer.write(start, data[start : start + CHUNK]))
        await asyncio.sleep(0)
        assert writing.done() == (start + CHUNK < len(data))
    assert (bytes(sandboxd.data), sandboxd.frames) == (data, 16)
    assert writer.accepted == 0
    # Some of it has come when the connection breaks.
    del sandboxd.data[3 * CHUNK :]
    sandboxd.stdin.disconnect()
    sandboxd.stdin.resume(sandboxd.state())
    await writing
    assert (bytes(sandboxd.data), sandboxd.frames) == (data, 16 + 13)
    sandboxd.stdin.tell(sandboxd.state())
    assert await writer.acknowledged(0) == len(data)


async def test_a_stream_is_acknowledged_in_steps_and_where_it_pauses(sandboxd: Sandboxd) -> None:
    parts = [chunk(start, bytes(CHUNK)) for start in range(0, 8 * CHUNK, CHUNK)]
    answers = write_stdin(sandboxd.writer(), stream(*parts, forever=True))
    assert await anext(answers) == 0
    following = await waits(anext(answers))
    assert len(sandboxd.data) == 8 * CHUNK
    for accepted in range(CHUNK, 5 * CHUNK, CHUNK):
        assert not following.done()
        sandboxd.stdin.tell({**sandboxd.state(), "accepted": accepted})
        for _ in range(30):
            await asyncio.sleep(0)
    assert await following == 4 * CHUNK
    following = await waits(anext(answers))
    sandboxd.stdin.tell(sandboxd.state())
    assert await following == 8 * CHUNK
    await answers.aclose()


async def test_a_stream_that_stops_is_acknowledged_to_its_last_byte(sandboxd: Sandboxd) -> None:
    answers = write_stdin(sandboxd.writer(), stream(chunk(0, b"abc"), chunk(3, b"def")))
    assert await anext(answers) == 0
    last = await waits(anext(answers))
    sandboxd.stdin.tell(sandboxd.state())
    assert await last == 6
    assert await anext(answers, None) is None


async def test_known_bytes_are_passed_over_and_gaps_refused(sandboxd: Sandboxd) -> None:
    sandboxd.stdin.resume({"accepted": 4, "window": 1000, "ended": False})
    writer = sandboxd.writer()
    await writer.write(1, b"bc")
    assert (writer.accepted, sandboxd.frames) == (4, 0)
    with pytest.raises(StdinGapError, match="ends at 4"):
        await writer.write(5, b"x")
    with pytest.raises(StdinGapError):
        await writer.end(5)
    with pytest.raises(InvalidFieldError, match="must be 4"):
        await writer.end(3)


async def test_the_end_is_acknowledged_and_a_repeat_is_ok(sandboxd: Sandboxd) -> None:
    ending = await waits(sandboxd.writer().end(0))
    sandboxd.stdin.tell(sandboxd.state())
    assert await ending == 0
    again = sandboxd.writer()
    assert await again.end(0) == 0
    assert sandboxd.frames == 1
    with pytest.raises(StdinEndedError):
        await again.write(0, b"x")


async def test_an_end_of_which_a_broken_connection_told_nothing_is_sent_again(sandboxd: Sandboxd) -> None:
    ending = await waits(sandboxd.writer().end(0))
    sandboxd.stdin.disconnect()
    sandboxd.stdin.resume({**sandboxd.state(), "ended": False})
    for _ in range(5):
        await asyncio.sleep(0)
    sandboxd.stdin.tell(sandboxd.state())
    assert await ending == 0
    assert sandboxd.frames == 2


async def test_on_a_terminal_the_end_ends_the_stream_alone(sandboxd: Sandboxd) -> None:
    assert await sandboxd.writer(hangs_up=False).end(0) == 0
    assert not sandboxd.ended


async def test_an_end_that_the_process_ended_by_is_acknowledged(sandboxd: Sandboxd) -> None:
    ending = await waits(sandboxd.writer().end(0))
    sandboxd.stdin.tell(sandboxd.state())
    sandboxd.stdin.finish()
    assert await ending == 0


async def test_a_later_writer_goes_on_behind_what_the_former_had_on_its_way(sandboxd: Sandboxd) -> None:
    former = sandboxd.writer()
    writing = await waits(written(former, 0, b"old"))
    beginning = await waits(sandboxd.writer().begin())
    with pytest.raises(StdinTakenOverError):
        await writing
    sandboxd.stdin.tell(sandboxd.state())
    assert await beginning == 3
    assert isinstance(await former.lost(), StdinTakenOverError)


async def test_a_finished_process_has_no_writers(sandboxd: Sandboxd) -> None:
    writing = await waits(written(sandboxd.writer(), 0, b"x"))
    sandboxd.stdin.finish()
    with pytest.raises(ProcessEndedError):
        await writing
    with pytest.raises(ProcessEndedError):
        sandboxd.writer()


@pytest.mark.parametrize(
    "lie",
    [
        {"accepted": 1, "window": 9, "ended": False},
        {"accepted": 0, "window": -1, "ended": False},
        {"accepted": "0", "window": 9, "ended": False},
        {"window": 9},
    ],
)
async def test_a_forged_state_is_a_broken_protocol(sandboxd: Sandboxd, lie: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        sandboxd.stdin.tell(lie)


async def test_an_input_that_forgets_is_a_broken_protocol(sandboxd: Sandboxd) -> None:
    sandboxd.stdin.resume({"accepted": 4, "window": 9, "ended": True})
    for lie in ({"accepted": 3, "window": 9, "ended": True}, {"accepted": 4, "window": 9, "ended": False}):
        with pytest.raises(ProtocolError):
            sandboxd.stdin.resume(lie)


async def test_more_room_than_there_can_be_is_not_believed(sandboxd: Sandboxd) -> None:
    sandboxd.stdin.tell({"accepted": 0, "window": 1 << 60, "ended": False})
    assert sandboxd.stdin.window == MAX_WAITING_BYTES


async def stream(*parts: pb.WriteStdinRequest, forever: bool = False) -> AsyncIterator[pb.WriteStdinRequest]:
    for part in parts:
        yield part
    if forever:
        await asyncio.Event().wait()


def chunk(offset: int, data: bytes) -> pb.WriteStdinRequest:
    return pb.WriteStdinRequest(chunk=pb.StdinChunk(offset=offset, data=data))


@pytest.mark.parametrize(
    "part",
    [chunk(0, bytes((64 << 10) + 1)), pb.WriteStdinRequest(header=pb.WriteStdinHeader()), pb.WriteStdinRequest()],
    ids=["large", "second-header", "empty"],
)
async def test_messages_that_break_a_rule_are_refused(sandboxd: Sandboxd, part: pb.WriteStdinRequest) -> None:
    answers = write_stdin(sandboxd.writer(), stream(part))
    assert await anext(answers) == 0
    with pytest.raises(InvalidFieldError):
        await anext(answers)


async def test_a_stream_that_stops_leaves_the_input_open(sandboxd: Sandboxd) -> None:
    assert [offset async for offset in write_stdin(sandboxd.writer(), stream(chunk(0, b"")))] == [0, 0]
    assert not sandboxd.stdin.ended


async def test_a_writer_that_says_nothing_is_not_waited_for_when_another_takes_over(sandboxd: Sandboxd) -> None:
    answers = write_stdin(sandboxd.writer(), stream(forever=True))
    assert await anext(answers) == 0
    idle = await waits(anext(answers))
    sandboxd.writer()
    with pytest.raises(StdinTakenOverError):
        await idle
