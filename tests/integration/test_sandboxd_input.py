"""Input, terminals and signals of programs in the shipped image, as the executor sees them."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator

import pytest
from sandboxd_harness import Sandbox  # type: ignore[import-not-found]  # pytest puts this directory on the path

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

SIZE = {"rows": 30, "columns": 100}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


def test_input_arrives_whole_and_its_end_is_the_programs(sandbox: Sandbox) -> None:
    data = secrets.token_bytes(900_000)
    name = sandbox.start("sha256sum", stdin=True)
    assert sandbox.wait("input", process=name)[0] == {
        "type": "input",
        "process": name,
        "accepted": 0,
        "window": 1 << 20,
        "ended": False,
    }
    sandbox.feed(name, data, end=True)
    assert sandbox.finish(name)[1].split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_what_comes_twice_is_read_once(sandbox: Sandbox) -> None:
    name = sandbox.start("cat", stdin=True)
    sandbox.feed(name, b"abcd")
    sandbox.feed(name, b"cdef", 2)
    sandbox.feed(name, b"", 6, end=True)
    sandbox.feed(name, b"", 6, end=True)
    assert sandbox.finish(name)[1] == b"abcdef"


def test_a_program_that_never_reads_is_not_buffered_for_without_bound(sandbox: Sandbox) -> None:
    name = sandbox.start("sleep", "1000", stdin=True)
    window, sent = sandbox.wait("input", process=name)[0]["window"], 0
    while sent < window:
        part = bytes(min(1 << 16, window - sent))
        window = sandbox.feed(name, part, sent)["window"]
        sent += len(part)
    # What waits, and what a pipe holds.
    assert sent <= (1 << 20) + (1 << 16)
    sandbox.send({"type": "cancel", "process": name})
    assert sandbox.finish(name)[0]["end"] == {"kind": "cancelled"}


def test_input_of_a_program_that_has_closed_it_is_dropped(sandbox: Sandbox) -> None:
    name = sandbox.start("sh", "-c", "exec <&-; echo closed; sleep 0.3; echo done", stdin=True)
    came = sandbox.read_until(name, b"closed\n", "stdout")
    for turn in range(4):
        sandbox.feed(name, bytes(1 << 16), turn << 16)
    assert sandbox.collect(name, {"stdout": came})[1]["stdout"] == b"closed\ndone\n"


def test_what_was_acknowledged_outlives_the_connection(sandbox: Sandbox) -> None:
    name = sandbox.start("sh", "-c", "read go < /sandbox/go; cat", stdin=True)
    sandbox.feed(name, b"before ")
    sandbox.disconnect()
    welcome = sandbox.connect({name: {"stdout": 0, "stderr": 0, "terminal": 0}})
    (row,) = [row for row in welcome["processes"] if row["process"] == name]
    assert (row["input"]["accepted"], row["input"]["ended"]) == (7, False)
    sandbox.feed(name, b"after", 7, end=True)
    sandbox.run("sh", "-c", "echo go > /sandbox/go")
    assert sandbox.finish(name)[1] == b"before after"


@pytest.fixture(autouse=True)
def _fifo(sandbox: Sandbox) -> None:
    sandbox.run("sh", "-c", "rm -f /sandbox/go; mkfifo /sandbox/go")


def test_merged_output_comes_in_the_order_of_the_writes(sandbox: Sandbox) -> None:
    script = "for i in 1 2 3; do echo out$i; echo err$i >&2; done"
    header, out, err = sandbox.run("sh", "-c", script, merge_output=True)
    assert (header["end"]["code"], out, err) == (0, b"out1\nerr1\nout2\nerr2\nout3\nerr3\n", b"")


def test_a_terminal_is_a_terminal_of_its_own_user(sandbox: Sandbox) -> None:
    script = (
        'test -t 0 -a -t 1 -a -t 2 && stty size && echo $TERM && stat -c "%u" $(tty) && echo to-tty > /dev/tty'
        " && echo reopened > /dev/stdout && test $(cut -d' ' -f6 /proc/$$/stat) = $$ && echo leads"
    )
    for user, uid in (("program", b"1000"), ("install", b"1001")):
        header, streams = sandbox.collect(sandbox.start("sh", "-c", script, terminal=SIZE, user=user))
        assert header["end"] == {"kind": "exited", "code": 0}, streams
        assert streams["terminal"].split() == [
            *(b"30", b"100", b"xterm-256color", uid),
            *(b"to-tty", b"reopened", b"leads"),
        ]
        assert not streams["stdout"]
        assert not streams["stderr"]
    assert sandbox.collect(sandbox.start("sh", "-c", "echo $TERM", terminal=SIZE, env={"TERM": "dumb"}))[1][
        "terminal"
    ] == (b"dumb\r\n")


def test_keys_are_echoed_and_end_of_file_is_a_key(sandbox: Sandbox) -> None:
    name = sandbox.start("cat", terminal=SIZE)
    sandbox.feed(name, b"hello\n")
    came = sandbox.read_until(name, b"hello\r\nhello\r\n")
    sandbox.feed(name, b"\x04", 6)
    header, streams = sandbox.collect(name, {"terminal": came})
    assert (header["end"], streams["terminal"]) == ({"kind": "exited", "code": 0}, b"hello\r\nhello\r\n")


def test_a_resize_is_told_to_the_program(sandbox: Sandbox) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done"
    name = sandbox.start("bash", "-c", script, terminal=SIZE)
    came = sandbox.read_until(name, b"ready")
    sandbox.send({"type": "resize", "process": name, "rows": 50, "columns": 132})
    assert b"50 132" in sandbox.collect(name, {"terminal": came})[1]["terminal"]


def test_an_interrupt_key_reaches_the_foreground_alone(sandbox: Sandbox) -> None:
    name = sandbox.start("bash", "--norc", "-i", terminal=SIZE, env={"PS1": "> "})
    came = sandbox.read_until(name, b"> ")
    line = b"sleep 1000; echo code $?\n"
    sandbox.feed(name, line)
    _until_runs(sandbox, "1000")
    sandbox.feed(name, b"\x03", len(line))
    came = sandbox.read_until(name, b"^C", came=came)
    sandbox.feed(name, b"exit 7\n", len(line) + 1)
    assert sandbox.collect(name, {"terminal": came})[0]["end"] == {"kind": "exited", "code": 7}


def test_a_signal_goes_to_the_foreground_group(sandbox: Sandbox) -> None:
    name = sandbox.start("bash", "--norc", "-i", terminal=SIZE, env={"PS1": "> "})
    sandbox.feed(name, b"sleep 1001\n")
    _until_runs(sandbox, "1001")
    sandbox.send({"type": "signal", "process": name, "signal": 15})
    line = b"echo code $?; exit 3\n"
    sandbox.feed(name, line, 11)
    header, streams = sandbox.collect(name)
    assert b"code 143" in streams["terminal"]
    assert header["end"] == {"kind": "exited", "code": 3}


def test_a_signal_goes_to_the_leaders_group(sandbox: Sandbox) -> None:
    script = "trap 'echo caught; exit 4' INT; sleep 1002 & echo $!; wait"
    name = sandbox.start("bash", "-c", script)
    came = sandbox.read_until(name, b"\n", "stdout")
    sandbox.send({"type": "signal", "process": name, "signal": 2})
    header, streams = sandbox.collect(name, {"stdout": came})
    assert streams["stdout"].endswith(b"caught\n")
    assert header["end"] == {"kind": "exited", "code": 4}
    # A signal to what has ended is nobody's.
    sandbox.send({"type": "signal", "process": name, "signal": 9})
    assert sandbox.run("true")[0]["end"]["code"] == 0


def test_a_signal_right_behind_the_start_is_not_lost(sandbox: Sandbox) -> None:
    for number in (15, 9):
        name = sandbox.start("sleep", "1000")
        sandbox.send({"type": "signal", "process": name, "signal": number})
        assert sandbox.finish(name)[0]["end"] == {"kind": "signaled", "signal": number}


def test_a_child_that_holds_the_terminal_does_not_delay_the_end(sandbox: Sandbox) -> None:
    begin = time.monotonic()
    script = "trap '' HUP; (while :; do echo x; sleep 0.02; done) & echo done"
    name = sandbox.start("bash", "-c", script, terminal=SIZE)
    header, streams = sandbox.collect(name)
    assert header["end"] == {"kind": "exited", "code": 0}
    assert b"done\r\n" in streams["terminal"]
    assert time.monotonic() - begin < 3
    sandbox.send({"type": "cancel", "process": name})


def test_a_program_may_close_its_terminal_and_open_it_again(sandbox: Sandbox) -> None:
    script = "exec <&- >&- 2>&-; sleep 0.2; echo again > /dev/tty"
    assert sandbox.collect(sandbox.start("sh", "-c", script, terminal=SIZE))[1]["terminal"] == b"again\r\n"


def test_endless_output_on_a_terminal_waits_for_the_executor(sandbox: Sandbox) -> None:
    name = sandbox.start("yes", terminal=SIZE)
    size = 0
    # Unacknowledged, at most so much comes; then a program that was asked for after it is served.
    while size < 4 << 20:
        size += len(sandbox.wait("output", process=name)[1])
    assert sandbox.run("true")[0]["end"]["code"] == 0
    assert not [frame for frame in sandbox.kept if frame[0].get("process") == name and frame[0]["type"] == "output"]
    sandbox.send({"type": "cancel", "process": name})
    sandbox.send({"type": "ack", "process": name, "stdout": 0, "stderr": 0, "terminal": size})
    sandbox.wait("ended", process=name)
    sandbox.send({"type": "forget", "process": name})


@pytest.mark.parametrize("fields", [{}, {"stdin": True}, {"terminal": SIZE}], ids=["plain", "stdin", "terminal"])
def test_an_idle_program_is_killed(sandbox: Sandbox, fields: dict[str, object]) -> None:
    script = "for i in 1 2 3 4; do echo $i; sleep 0.2; done; sleep 1000"
    begin = time.monotonic()
    header, _ = sandbox.collect(sandbox.start("sh", "-c", script, idle_timeout_ms=500, **fields))
    assert header["end"] == {"kind": "timed_out", "idle": True}
    assert 1.1 < time.monotonic() - begin < 10


def test_input_keeps_a_quiet_program_from_being_idle(sandbox: Sandbox) -> None:
    name = sandbox.start("sh", "-c", "cat > /dev/null; sleep 1000", stdin=True, idle_timeout_ms=600)
    begin = time.monotonic()
    fed = 0
    while time.monotonic() - begin < 1.2:
        fed = sandbox.feed(name, b"x", fed)["accepted"]
    sandbox.feed(name, b"", fed, end=True)
    assert sandbox.finish(name)[0]["end"] == {"kind": "timed_out", "idle": True}
    assert time.monotonic() - begin > 1.7


def _until_runs(sandbox: Sandbox, argument: str) -> None:
    """A program that was started with this argument runs. The pattern is not what it matches."""
    pattern = f"^{argument[:-1]}[{argument[-1]}]$"
    script = f"until grep -qsaz '{pattern}' /proc/[0-9]*/cmdline; do sleep 0.01; done"
    assert sandbox.run("sh", "-c", script, timeout_ms=20_000)[0]["end"] == {"kind": "exited", "code": 0}
