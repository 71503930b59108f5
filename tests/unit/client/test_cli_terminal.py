"""The command line as a child with a real terminal, and with pipes, against a gateway on a socket."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qila.cli.__main__ import call
from qila.cli.terminal import EscapeFilter
from qila.gateway.v1 import gateway_pb2 as pb

from .scripted_gateway import PATIENCE, SANDBOX, ScriptedExec, ScriptedGateway

ROOT = Path(__file__).parents[3]
QILA = [sys.executable, "-m", "qila.cli"]
# The terminal becomes the child's own only if the child asks for it.
CONTROLLED = [
    sys.executable,
    "-c",
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])",
    *QILA,
]


class Terminal:
    """A terminal with the command on it."""

    def __init__(self, *arguments: str) -> None:
        self.master, self.slave = os.openpty()
        self.resize(24, 80)
        self.modes = termios.tcgetattr(self.slave)
        self.shown = b""
        self.child = subprocess.Popen(
            [*CONTROLLED, *arguments],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}", "TERM": "xterm-test"},
        )

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def until(self, words: bytes) -> bytes:
        """All that was shown, once it has these words."""
        deadline = time.monotonic() + PATIENCE
        while words not in self.shown:
            ready = select.select([self.master], [], [], max(deadline - time.monotonic(), 0))[0]
            assert ready, f"{words!r} was not shown, but {self.shown!r}"
            self.shown += os.read(self.master, 65536)
        return self.shown

    def code(self) -> int:
        return self.child.wait(PATIENCE)

    @property
    def is_restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.modes

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        os.close(self.master)
        os.close(self.slave)


@contextmanager
def on_terminal(*arguments: str) -> Iterator[Terminal]:
    terminal = Terminal(*arguments)
    try:
        yield terminal
    finally:
        terminal.close()


def only(gateway: ScriptedGateway) -> ScriptedExec:
    (execution,) = gateway.execs.values()
    return execution


def eventually(execution: ScriptedExec, holds: Callable[[], bool]) -> None:
    with execution.changed:
        assert execution.changed.wait_for(holds, PATIENCE)


def test_a_shell_is_a_terminal(gateway: ScriptedGateway) -> None:
    with on_terminal("shell", SANDBOX) as terminal:
        terminal.until(b"$ ")
        terminal.type(b"ab\x03")
        assert b"[a][b]<interrupt>" in terminal.until(b"<interrupt>")
        assert not terminal.is_restored
        request = only(gateway).request
        assert (request.terminal.rows, request.terminal.columns) == (24, 80)
        assert (dict(request.env), list(request.command.argv)) == ({"TERM": "xterm-test"}, ["bash"])
        terminal.resize(50, 132)
        eventually(only(gateway), lambda: only(gateway).sizes[-1] == (50, 132))
        terminal.type(b"\rsize\r")
        terminal.until(b"size is 50 132")
        terminal.type(b"exit 7\r")
        assert terminal.code() == 7
        assert terminal.is_restored


def test_the_escape_leaves_the_shell_running(gateway: ScriptedGateway) -> None:
    with on_terminal("shell", SANDBOX) as terminal:
        terminal.until(b"$ ")
        terminal.type(b"a\x1d\x1db\x1dd")
        assert b"detached" in terminal.until(b"qila attach")
        assert terminal.code() == 0
        assert terminal.is_restored
        assert only(gateway).input == b"a\x1db"
        assert not only(gateway).over
        (exec_id,) = gateway.execs
    with on_terminal("attach", "--tty", SANDBOX, exec_id) as terminal:
        terminal.until(b"[b]")
        terminal.type(b"\rexit 3\r")
        assert terminal.code() == 3
        assert terminal.is_restored


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_from_outside_restores_the_terminal(gateway: ScriptedGateway, number: signal.Signals) -> None:
    with on_terminal("shell", SANDBOX) as terminal:
        terminal.until(b"$ ")
        terminal.child.send_signal(number)
        assert terminal.code() == 130
        assert terminal.is_restored
        assert only(gateway).cancelled


def test_a_terminal_that_hangs_up_cancels(gateway: ScriptedGateway) -> None:
    terminal = Terminal("shell", SANDBOX)
    try:
        terminal.until(b"$ ")
        os.close(terminal.slave)
        os.close(terminal.master)
        eventually(only(gateway), lambda: only(gateway).cancelled)
        terminal.code()
    finally:
        terminal.child.kill()
        terminal.child.wait()


def test_a_lost_gateway_restores_the_terminal_and_the_shell_goes_on(gateway: ScriptedGateway) -> None:
    with on_terminal("shell", SANDBOX) as terminal:
        terminal.until(b"$ ")
        gateway.break_streams()
        terminal.type(b"x")
        terminal.until(b"[x]")
        terminal.type(b"\rexit 0\r")
        assert terminal.code() == 0
        assert terminal.shown.count(b"[x]") == 1


def test_a_crash_of_the_stream_restores_the_terminal(gateway: ScriptedGateway) -> None:
    def fall(execution: ScriptedExec) -> int:
        execution.write(b"ready")
        execution.read()
        del gateway.execs[execution.request.exec_id]
        gateway.epoch += 1
        return 0

    gateway.programs["bash"] = fall
    with on_terminal("shell", SANDBOX) as terminal:
        terminal.until(b"ready")
        terminal.type(b"x")
        assert b"EXEC_NOT_FOUND" in terminal.until(b"EXEC_NOT_FOUND")
        assert terminal.code() == 125
        assert terminal.is_restored


def test_a_second_writer_ends_the_first_terminal(gateway: ScriptedGateway) -> None:
    with on_terminal("shell", SANDBOX) as first:
        first.until(b"$ ")
        first.type(b"1")
        first.until(b"[1]")
        (exec_id,) = gateway.execs
        with on_terminal("attach", "-t", SANDBOX, exec_id) as second:
            second.until(b"[1]")
            second.type(b"2")
            first.until(b"[2]")
            first.type(b"3")
            first.until(b"STDIN_TAKEN_OVER")
            assert first.code() == 125
            assert first.is_restored
            second.type(b"\rexit 0\r")
            assert second.code() == 0
    assert b"3" not in only(gateway).input


def test_ctrl_c_on_a_terminal_that_is_not_lent_cancels(gateway: ScriptedGateway) -> None:
    with on_terminal("exec", SANDBOX, "--", "sleep") as terminal:
        terminal.until(b"RUN")
        terminal.type(b"\x03")
        assert terminal.code() == 130
        assert b"cancelling" in terminal.until(b"cancelled")
        assert only(gateway).cancelled


def piped(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"}
    return subprocess.run(
        [*QILA, *arguments], input=data, capture_output=True, env=environment, cwd=ROOT, timeout=PATIENCE, check=False
    )


def test_a_pipe_goes_in_and_comes_out_bit_for_bit(gateway: ScriptedGateway) -> None:
    data = os.urandom(2 << 20)
    gateway.break_input_at = 1 << 20
    done = piped("exec", "-q", "-i", SANDBOX, "--", "cat", data=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data
    assert only(gateway).writers == 2


def test_without_stdin_the_pipe_stays_outside(gateway: ScriptedGateway) -> None:
    gateway.programs["none"] = lambda running: len(running.input)
    assert piped("exec", SANDBOX, "--", "none", data=b"abc").returncode == 0
    assert not only(gateway).request.stdin


def test_a_program_that_reads_nothing_ends_all_the_same(gateway: ScriptedGateway) -> None:
    gateway.programs["none"] = lambda running: 4
    assert piped("exec", "-i", SANDBOX, "--", "none", data=os.urandom(4 << 20)).returncode == 4


def test_a_piped_terminal_gets_the_end_of_file_character(gateway: ScriptedGateway) -> None:
    def until_end(running: ScriptedExec) -> int:
        while not running.input.endswith(b"\x04"):
            running.read()
        return len(running.input)

    gateway.programs["until_end"] = until_end
    done = piped("exec", "-q", "-t", SANDBOX, "--", "until_end", data=b"abc")
    assert done.returncode == 4
    assert only(gateway).request.HasField("terminal")
    assert not only(gateway).input_closed


def test_detached_execs_are_listed_signalled_and_cancelled(
    gateway: ScriptedGateway, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(["exec", "--detach", "-i", "--workdir", "sub", SANDBOX, "--", "sleep"]) == 0
    first = capfd.readouterr().out.strip()
    assert call(["exec", "-d", "--json", "--merge-output", "--idle-timeout", "9", SANDBOX, "--", "sleep"]) == 0
    second = json.loads(capfd.readouterr().out)["exec_id"]
    requests = [item.request for item in gateway.execs.values()]
    assert (requests[0].detach, requests[0].stdin, requests[0].command.working_directory) == (True, True, "sub")
    assert (requests[1].merge_output, requests[1].idle_timeout.seconds) == (True, 9)
    assert call(["signal", SANDBOX, first, "term"]) == 0
    assert call(["signal", "--json", SANDBOX, first, "0"]) == 125
    capfd.readouterr()
    assert call(["attach", "-q", SANDBOX, first]) == 143
    assert call(["cancel", "--json", SANDBOX, second]) == 0
    assert json.loads(capfd.readouterr().out) == {"sandbox_id": SANDBOX, "exec_id": second}
    assert call(["attach", "-q", SANDBOX, second]) == 130
    capfd.readouterr()
    assert call(["execs", SANDBOX]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [second, first]
    assert lines[0].endswith("cancelled")
    assert call(["execs", "--json", "--running", SANDBOX]) == 0
    assert capfd.readouterr().out == ""


def test_a_word_that_looks_like_an_option_of_ours_is_the_programs(gateway: ScriptedGateway) -> None:
    gateway.programs["cat"] = lambda running: 0
    assert call(["exec", "-q", SANDBOX, "--", "cat", "-i", "--json", "--", "-t"]) == 0
    assert list(only(gateway).request.command.argv) == ["cat", "-i", "--json", "--", "-t"]
    assert not only(gateway).request.stdin
    assert call(["exec", SANDBOX, "--json", "main.py"]) == 125


def test_heartbeats_and_idle_ends_are_told(gateway: ScriptedGateway, capfd: pytest.CaptureFixture[str]) -> None:
    def silent(running: ScriptedExec) -> int:
        running.tell(heartbeat=pb.Heartbeat(phase=pb.PHASE_RUN))
        running.tell(ended=pb.ExecEnded(timed_out=pb.TimedOut(phase=pb.PHASE_RUN, idle=True)))
        return 0

    gateway.programs["silent"] = silent
    assert call(["exec", SANDBOX, "--", "silent"]) == 124
    assert "timed out in RUN: it was idle for too long" in capfd.readouterr().err


def test_a_shell_completes_ids(gateway: ScriptedGateway) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"}
    for shell in ("bash", "zsh", "fish"):
        assert b"_QILA_COMPLETE" in piped("completion", shell).stdout
    asked = {**environment, "_QILA_COMPLETE": "bash_complete", "COMP_WORDS": "qila execs sb_", "COMP_CWORD": "2"}
    command = [sys.executable, "-c", "from qila.cli.__main__ import main; main()"]
    told = subprocess.run(command, env=asked, cwd=ROOT, capture_output=True, timeout=PATIENCE, check=False)
    assert told.stdout.decode().split() == [f"plain,{SANDBOX}"]


def test_json_of_the_services_and_of_what_is_made(
    gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QILA_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("QILA_STATE_DIR", str(tmp_path))
    assert call(["status", "--json"]) == 1
    told = json.loads(capfd.readouterr().out)
    assert [(item["name"], item["healthy"], item["pid"]) for item in told["services"]] == [
        ("resolver", False, None),
        ("executor", False, None),
        ("gateway", False, None),
    ]
    assert call(["create", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["id"] == SANDBOX


def test_run_takes_input_and_tells_events(gateway: ScriptedGateway, tmp_path: Path) -> None:
    (tmp_path / "cat").write_text("")
    done = piped("run", "-i", "--json", str(tmp_path / "cat"), data=b"abc")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [next(iter(set(event) - {"sequence", "time"})) for event in events] == [
        "created",
        "phase_started",
        "output",
        "ended",
    ]
    assert (done.returncode, gateway.removed) == (0, [SANDBOX])


@pytest.mark.parametrize(
    ("parts", "passed", "left"),
    [
        ([b"ab"], b"ab", False),
        ([b"a\x1d", b"d"], b"a", True),
        ([b"a\x1ddb"], b"a", True),
        ([b"\x1d\x1d"], b"\x1d", False),
        ([b"\x1dx\x1dD"], b"\x1dx", True),
        ([b"\xff\x00\x1d"], b"\xff\x00", False),
    ],
)
def test_escape(parts: list[bytes], passed: bytes, left: bool) -> None:  # noqa: FBT001 - a parameter of the table
    found = EscapeFilter()
    results = [found.feed(part) for part in parts]
    assert b"".join(result[0] for result in results) == passed
    assert any(result[1] for result in results) is left
