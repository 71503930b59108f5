from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sandbox.sandboxd.qila_sandboxd.environment import environment
from sandbox.sandboxd.qila_sandboxd.idle import IdleClock
from sandbox.sandboxd.qila_sandboxd.inputs import Input
from sandbox.sandboxd.qila_sandboxd.loop import Loop
from sandbox.sandboxd.qila_sandboxd.supervisors import Order

PIPE_BYTES = 1 << 16


class Program:
    """The reading end of an input, and its loop."""

    def __init__(self, maximum: int, *, hangs_up: bool = True) -> None:
        self.loop = Loop()
        self.moves = 0
        self.reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self.input = Input(self.loop, writer, maximum, self._move, hangs_up=hangs_up)

    def _move(self) -> None:
        self.moves += 1

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += os.read(self.reader, size - len(data))
            self.loop.later(0, lambda: None)
            self.loop.run_once()
        return data


@pytest.fixture
def program() -> Iterator[Program]:
    made = Program(1 << 20)
    yield made
    made.input.close()
    os.close(made.reader)


def test_bytes_that_are_known_are_passed_over(program: Program) -> None:
    program.input.receive(0, b"abcd", end=False)
    program.input.receive(2, b"cdef", end=False)
    program.input.receive(1, b"b", end=False)
    program.input.receive(6, b"", end=True)
    assert program.read(6) == b"abcdef"
    assert os.read(program.reader, 1) == b""


@pytest.mark.parametrize(
    ("offset", "data", "end"),
    [(1, b"x", False), (0, bytes((1 << 20) + PIPE_BYTES), False), (1, b"", True)],
    ids=["gap", "beyond-the-window", "gap-before-the-end"],
)
def test_what_breaks_the_rules_is_refused(program: Program, offset: int, data: bytes, *, end: bool) -> None:
    with pytest.raises(ValueError, match="input from"):
        program.input.receive(offset, data, end=end)
    assert program.input.state() == {"accepted": 0, "window": 1 << 20, "ended": False}


def test_nothing_comes_behind_the_end(program: Program) -> None:
    program.input.receive(0, b"ab", end=True)
    program.input.receive(0, b"ab", end=True)
    with pytest.raises(ValueError, match="input from 2 to 3"):
        program.input.receive(2, b"c", end=False)


def test_the_window_moves_as_the_program_reads_and_is_told_in_steps(program: Program) -> None:
    while (start := program.input.accepted) < program.input.window:
        program.input.receive(start, bytes(min(PIPE_BYTES, program.input.window - start)), end=False)
    held = program.input.accepted
    assert held == (1 << 20) + PIPE_BYTES
    assert program.input.news() == {"accepted": held, "window": held, "ended": False}
    assert program.input.news() is None
    program.read(held)
    news = program.input.news()
    assert news == {"accepted": held, "window": held + (1 << 20), "ended": False}
    assert program.moves


def test_an_input_that_was_closed_takes_and_drops() -> None:
    program = Program(16)
    os.close(program.reader)
    for offset in range(0, 64, 16):
        program.input.receive(offset, bytes(16), end=False)
    assert program.input.window == 64 + 16


def test_the_end_of_a_terminals_input_hangs_up_nothing() -> None:
    program = Program(16, hangs_up=False)
    program.input.receive(0, b"a", end=True)
    assert program.read(1) == b"a"
    os.set_blocking(program.reader, False)
    with pytest.raises(BlockingIOError):
        os.read(program.reader, 1)
    program.input.close()
    os.close(program.reader)


def test_time_that_the_executor_takes_is_not_idle() -> None:
    loop = Loop()
    held, expired = [True, True], []
    IdleClock(loop, 0.01, lambda: bool(held and held.pop()), lambda: expired.append(len(held)))
    while not expired:
        loop.run_once()
    assert expired == [0]


def test_no_idle_timeout_is_no_timer() -> None:
    loop = Loop()
    IdleClock(loop, 0, lambda: False, lambda: pytest.fail("expired"))
    done: list[int] = []
    loop.later(0.01, lambda: done.append(1))
    while not done:
        loop.run_once()


def test_a_terminal_names_itself_unless_the_client_does() -> None:
    assert environment(1000, {}, has_terminal=True)["TERM"] == "xterm-256color"
    assert environment(1001, {"TERM": "dumb"}, has_terminal=True)["TERM"] == "dumb"
    assert "TERM" not in environment(1000, {})


def test_an_order_says_what_comes_beside_it() -> None:
    def flags(*, stdin: bool = False, merged: bool = False, size: tuple[int, int] | None = None) -> int:
        order = Order(["a"], {}, "/", 1000, background=True, stdin=stdin, merged=merged, size=size)
        return int.from_bytes(order.packed()[8:12], "little")

    assert flags() == 1
    assert flags(stdin=True, merged=True) == 1 | 2 | 8
    assert flags(stdin=True, merged=True, size=(24, 80)) == 1 | 4
