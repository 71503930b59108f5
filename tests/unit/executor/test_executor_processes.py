from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from services.executor.errors import (
    LimitError,
    NoTerminalError,
    OffsetError,
    ProcessEndedError,
    ProcessExistsError,
    ProcessNotFoundError,
    ProtocolError,
    StdinNotOpenError,
)
from services.executor.process import ProcessEnd, ProcessSpec, Started
from services.executor.process_log import ProcessLog
from services.executor.processes import MAX_RUNNING, ProcessTable
from services.executor.spool import CHUNK_BYTES, Chunk


class Table:
    """A process table whose frames are kept instead of sent."""

    def __init__(self, directory: Path) -> None:
        self.sent: list[Mapping[str, Any]] = []
        self.payloads: list[bytes] = []
        self.condemned: list[str] = []
        self.table = ProcessTable(
            "sb_test",
            directory,
            environment={"GOMAXPROCS": "2", "OMP_NUM_THREADS": "2"},
            send=self._send,
            kill_container=self.condemned.append,
            on_disconnect=lambda: None,
        )

    def _send(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        self.sent.append(header)
        self.payloads.append(payload)

    def types(self) -> list[str]:
        return [frame["type"] for frame in self.sent]


@pytest.fixture
def subject(tmp_path: Path) -> Table:
    return Table(tmp_path)


def spec(*argv: str, background: bool = False, limit: int = 1 << 20, end_at_limit: bool = False) -> ProcessSpec:
    return ProcessSpec(
        argv=argv or ("true",),
        env={},
        cwd="/sandbox",
        user="program",
        timeout_ms=0,
        output_limit_bytes=limit,
        end_at_output_limit=end_at_limit,
        background=background,
    )


def ended(kind: str, *, stdout: int = 0, **fields: int) -> dict[str, Any]:
    return {"end": {"kind": kind, **fields}, "offsets": {"stdout": stdout, "stderr": 0, "terminal": 0}, "oom_kills": 0}


async def events(subject: Table, name: str, *, stdout: int = 0) -> list[Started | Chunk | ProcessEnd]:
    table = subject.table
    return [event async for event in table.watch(table.find(name), {"stdout": stdout, "stderr": 0, "terminal": 0})]


def end_of(subject: Table, name: str) -> ProcessEnd:
    end = subject.table.find(name).end
    assert end is not None
    return end


async def test_a_watcher_sees_start_output_and_end(subject: Table) -> None:
    subject.table.start("p", spec())
    watcher = asyncio.create_task(events(subject, "p"))
    subject.table.started("p")
    subject.table.output("p", "stdout", 0, b"hello")
    subject.table.ended("p", ended("exited", stdout=5, code=3))
    start, chunk, end = await watcher
    assert isinstance(start, Started)
    assert chunk == Chunk(stream="stdout", offset=0, data=b"hello")
    assert isinstance(end, ProcessEnd)
    assert (end.kind, end.code, end.lengths) == ("exited", 3, {"stdout": 5, "stderr": 0, "terminal": 0})
    assert subject.types() == ["start", "forget"]


async def test_of_a_quiet_process_that_has_ended_the_end_alone_is_told(subject: Table) -> None:
    subject.table.start("p", spec())
    subject.table.ended("p", ended("exited", code=0))
    (end,) = await events(subject, "p")
    assert isinstance(end, ProcessEnd)


async def test_output_comes_behind_a_start_that_was_never_told(subject: Table) -> None:
    subject.table.start("p", spec())
    subject.table.output("p", "stdout", 0, b"hello")
    subject.table.ended("p", ended("exited", stdout=5, code=0))
    assert [type(event) for event in await events(subject, "p")] == [Started, Chunk, ProcessEnd]


async def test_variables_of_the_sandbox_give_way_to_the_clients(subject: Table) -> None:
    subject.table.start("p", dataclasses.replace(spec(), env={"GOMAXPROCS": "1"}))
    assert subject.sent[0]["env"] == {"GOMAXPROCS": "1", "OMP_NUM_THREADS": "2"}
    assert subject.table.find("p").spec.env == {"GOMAXPROCS": "1"}


async def test_the_same_id_with_the_same_spec_joins(subject: Table) -> None:
    first = subject.table.start("p", spec())
    assert subject.table.start("p", spec()) is first
    assert subject.types() == ["start"]


@pytest.mark.parametrize(
    "field", [{"stdin": True}, {"terminal": (24, 80)}, {"merge_output": True}, {"idle_timeout_ms": 1}]
)
async def test_how_a_process_is_spoken_with_is_part_of_its_spec(subject: Table, field: dict[str, Any]) -> None:
    subject.table.start("p", spec())
    with pytest.raises(ProcessExistsError):
        subject.table.start("p", dataclasses.replace(spec(), **field))


async def test_a_later_executor_joins_a_process_with_a_terminal(subject: Table, tmp_path: Path) -> None:
    wanted = dataclasses.replace(spec(), terminal=(24, 80))
    subject.table.start("p", wanted)
    assert subject.sent[0]["terminal"] == {"rows": 24, "columns": 80}
    assert Table(tmp_path).table.start("p", wanted).spec == wanted


async def test_a_log_from_before_there_were_terminals_is_read(subject: Table, tmp_path: Path) -> None:
    subject.table.start("p", spec())
    subject.table.ended("p", ended("exited", code=0))
    log = tmp_path.with_suffix(".jsonl")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for new in ("stdin", "terminal", "merge_output", "idle_timeout_ms"):
        del rows[0]["fields"][new]
    del rows[1]["fields"]["idle"], rows[1]["fields"]["lengths"]["terminal"]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    later = Table(tmp_path)
    assert later.table.known("p", spec()) is not None
    assert [type(event) for event in await events(later, "p")] == [ProcessEnd]


async def test_input_goes_on_where_sandboxd_has_it_after_a_restart(subject: Table, tmp_path: Path) -> None:
    subject.table.start("p", dataclasses.replace(spec(), stdin=True))
    later = Table(tmp_path)
    row = {"process": "p", "input": {"accepted": 7, "window": 100, "ended": False}}
    later.table.welcome([row])
    process = later.table.find("p")
    writer = later.table.write_stdin(process)
    assert await writer.begin() == 7
    await writer.write(5, b"..after")
    assert (later.sent[-1]["offset"], later.payloads[-1]) == (7, b"after")
    later.table.input("p", {"accepted": 12, "window": 100, "ended": False})
    assert await writer.acknowledged(7) == 12


async def test_what_a_process_was_not_started_with_is_refused(subject: Table) -> None:
    process = subject.table.start("p", spec())
    with pytest.raises(StdinNotOpenError):
        subject.table.write_stdin(process)
    with pytest.raises(NoTerminalError):
        subject.table.resize(process, 24, 80)
    with pytest.raises(ProtocolError):
        subject.table.input("p", {"accepted": 0, "window": 1, "ended": False})


async def test_a_finished_process_takes_nothing_any_more(subject: Table) -> None:
    process = subject.table.start("p", dataclasses.replace(spec(), terminal=(24, 80)))
    subject.table.signal(process, 2)
    subject.table.resize(process, 50, 132)
    assert subject.sent[-2:] == [
        {"type": "signal", "process": "p", "signal": 2},
        {"type": "resize", "process": "p", "rows": 50, "columns": 132},
    ]
    subject.table.ended("p", ended("exited", code=0))
    subject.table.input("p", {"accepted": 0, "window": 1, "ended": False})
    for attempt in (
        lambda: subject.table.signal(process, 2),
        lambda: subject.table.resize(process, 24, 80),
        lambda: subject.table.write_stdin(process),
    ):
        with pytest.raises(ProcessEndedError):
            attempt()


async def test_an_idle_end_is_told_from_a_timeout(subject: Table) -> None:
    for name, idle in (("slow", {}), ("idle", {"idle": True})):
        subject.table.start(name, spec())
        subject.table.ended(name, ended("timed_out", **idle))
        assert (end_of(subject, name).kind, end_of(subject, name).idle) == ("timed_out", bool(idle))


async def test_the_same_id_with_another_spec_is_refused(subject: Table) -> None:
    subject.table.start("p", spec("true"))
    with pytest.raises(ProcessExistsError):
        subject.table.start("p", spec("false"))


async def test_a_seventeenth_process_is_refused_but_not_a_background_one(subject: Table) -> None:
    for index in range(MAX_RUNNING):
        subject.table.start(f"p{index}", spec())
    with pytest.raises(LimitError):
        subject.table.start("more", spec())
    subject.table.start("compile", spec(background=True))
    subject.table.ended("p0", ended("exited", code=0))
    subject.table.start("more", spec())


async def test_a_later_executor_goes_on_where_the_first_one_was_killed(subject: Table, tmp_path: Path) -> None:
    subject.table.start("p", spec())
    subject.table.started("p")
    subject.table.output("p", "stdout", 0, b"before ")
    later = Table(tmp_path)
    assert later.table.welcome([{"process": "p"}]) == {"p": {"stdout": 7, "stderr": 0, "terminal": 0}}
    later.table.output("p", "stdout", 7, b"after")
    later.table.ended("p", ended("exited", stdout=12, code=0))
    chunks = [event for event in await events(later, "p") if isinstance(event, Chunk)]
    assert b"".join(chunk.data for chunk in chunks) == b"before after"


@pytest.mark.parametrize("name", ["held", "offsets"])
async def test_a_later_executor_asks_for_nothing_that_was_dropped_beyond_the_limit(
    subject: Table, tmp_path: Path, name: str
) -> None:
    """sandboxd does not hold it any more: asked for it, it would hang up, again and again."""
    subject.table.start("p", spec(limit=4))
    subject.table.started("p")
    subject.table.output("p", "stdout", 0, b"headdropped")
    later = Table(tmp_path)
    told = {"stdout": 11, "stderr": 0, "terminal": 0}
    assert later.table.welcome([{"process": "p", name: told}]) == {"p": told}
    later.table.output("p", "stdout", 11, b"tail")
    later.table.ended("p", ended("exited", stdout=15, code=0))
    chunks = [event for event in await events(later, "p") if isinstance(event, Chunk)]
    assert [(chunk.offset, chunk.data) for chunk in chunks] == [(0, b"head"), (11, b"tail")]
    assert end_of(later, "p").dropped_bytes == 7


async def test_what_sandboxd_does_not_know_any_more_is_lost(subject: Table, tmp_path: Path) -> None:
    subject.table.start("p", spec())
    subject.table.started("p")
    later = Table(tmp_path)
    assert later.table.welcome([]) == {}
    assert end_of(later, "p").kind == "sandbox_lost"


async def test_a_start_that_never_arrived_is_sent_again(subject: Table, tmp_path: Path) -> None:
    subject.table.start("p", spec())
    later = Table(tmp_path)
    later.table.welcome([])
    later.table.connected()
    assert later.types() == ["start"]


async def test_a_dead_container_never_reads_as_success(subject: Table) -> None:
    subject.table.start("p", spec())
    subject.table.lose("the container ended")
    assert end_of(subject, "p").kind == "sandbox_lost"
    subject.table.ended("p", ended("exited", code=0))
    assert end_of(subject, "p").kind == "sandbox_lost"


async def test_a_process_that_cannot_be_killed_costs_its_container(subject: Table) -> None:
    subject.table.start("p", spec())
    subject.table.cancel("p")
    subject.table.ended("p", ended("unkillable"))
    assert subject.condemned
    assert end_of(subject, "p").kind == "sandbox_lost"


async def test_a_full_output_ends_a_process_only_if_it_asked(subject: Table) -> None:
    for name, asked in (("quiet", False), ("asked", True)):
        subject.table.start(name, spec(limit=4, end_at_limit=asked))
        subject.table.output(name, "stdout", 0, b"12345678")
    assert [frame["process"] for frame in subject.sent if frame["type"] == "cancel"] == ["asked"]
    subject.table.ended("asked", ended("cancelled", stdout=8))
    assert end_of(subject, "asked").kind == "output_limit"


async def test_an_offset_beyond_the_end_is_refused(subject: Table) -> None:
    subject.table.start("p", spec())
    subject.table.ended("p", ended("exited", code=0))
    with pytest.raises(OffsetError):
        await events(subject, "p", stdout=1)


async def test_an_unknown_process_is_named(subject: Table) -> None:
    with pytest.raises(ProcessNotFoundError, match="nobody"):
        subject.table.find("nobody")


@pytest.mark.parametrize(
    "header",
    [
        {},
        ended("vanished"),
        ended("exited"),
        ended("exited", code=256),
        ended("exited", code=-1),
        ended("signaled", signal=0),
        ended("signaled", signal=4000),
        {"end": {"kind": "exited", "code": True}, "offsets": {"stdout": 5, "stderr": 0, "terminal": 0}, "oom_kills": 0},
        {"end": {"kind": "exited", "code": 0}, "offsets": {"stdout": 4, "stderr": 0, "terminal": 0}, "oom_kills": 0},
        {"end": {"kind": "exited", "code": 0}, "offsets": {"stdout": "5", "stderr": 0, "terminal": 0}, "oom_kills": 0},
        {"end": {"kind": "exited", "code": 0}, "offsets": [], "oom_kills": 0},
    ],
)
async def test_a_forged_end_is_a_broken_protocol(subject: Table, header: dict[str, Any]) -> None:
    subject.table.start("p", spec())
    subject.table.output("p", "stdout", 0, b"12345")
    with pytest.raises(ProtocolError):
        subject.table.ended("p", header)
    assert subject.table.find("p").end is None


async def test_a_line_that_was_torn_by_kill_9_costs_nothing_that_was_told(subject: Table, tmp_path: Path) -> None:
    subject.table.start("p", spec())
    subject.table.ended("p", ended("exited", code=7))
    log = tmp_path.with_suffix(".jsonl")
    log.write_bytes(log.read_bytes() + b'{"process":"q","wh')
    later = Table(tmp_path)
    assert end_of(later, "p").code == 7
    later.table.start("q", spec())
    assert [process.id for process in Table(tmp_path).table.running] == ["q"]


async def test_a_log_of_nothing_but_a_torn_line_is_no_obstacle(tmp_path: Path) -> None:
    tmp_path.with_suffix(".jsonl").write_bytes(b'{"proc')
    Table(tmp_path).table.start("p", spec())
    assert [process.id for process in Table(tmp_path).table.running] == ["p"]


async def test_old_processes_and_the_lines_about_them_go(
    subject: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.executor.kept.MAX_KEPT", 3)
    monkeypatch.setattr("services.executor.process_log.MIN_LINES", 20)
    for index in range(50):
        subject.table.start(f"p{index}", spec())
        subject.table.output(f"p{index}", "stdout", 0, b"x")
        subject.table.ended(f"p{index}", ended("exited", stdout=1, code=0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p47", "p48", "p49"]
    assert len(tmp_path.with_suffix(".jsonl").read_bytes().splitlines()) < 40
    later = Table(tmp_path)
    assert end_of(later, "p49").code == 0
    with pytest.raises(ProcessNotFoundError):
        later.table.find("p0")


async def test_a_long_process_is_not_the_first_to_go_and_one_that_goes_while_it_is_read_is_named(
    subject: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.executor.kept.MAX_KEPT", 3)
    for name in ("long", "a", "b", "c"):
        subject.table.start(name, spec())
        subject.table.output(name, "stdout", 0, bytes(CHUNK_BYTES + 1))
    for name in ("a", "b", "c", "long"):
        subject.table.ended(name, ended("exited", stdout=CHUNK_BYTES + 1, code=0))
    watched = subject.table.watch(subject.table.find("b"), {"stdout": 0, "stderr": 0, "terminal": 0})
    assert isinstance(await anext(watched), Started)
    assert isinstance(await anext(watched), Chunk)
    subject.table.start("d", spec())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "long"]
    with pytest.raises(ProcessNotFoundError):
        await anext(watched)
    later = Table(tmp_path)
    later.table.ended("d", ended("exited", code=0))
    later.table.start("e", spec())
    assert [process.id for process in later.table.all] == ["long", "d", "e"]


async def test_outputs_that_are_kept_are_bounded_in_bytes(
    subject: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.executor.kept.MAX_KEPT_BYTES", 100)
    for index in range(6):
        subject.table.start(f"p{index}", spec(limit=40))
        subject.table.output(f"p{index}", "stdout", 0, bytes(45))
        subject.table.ended(f"p{index}", ended("exited", stdout=45, code=0))
    subject.table.start("next", spec())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p4", "p5"]


async def test_an_output_that_went_before_its_line_was_written_is_gone(subject: Table, tmp_path: Path) -> None:
    subject.table.start("p", spec())
    subject.table.output("p", "stdout", 0, b"x")
    subject.table.ended("p", ended("exited", stdout=1, code=0))
    subject.table.start("quiet", spec())
    subject.table.ended("quiet", ended("exited", code=0))
    shutil.rmtree(tmp_path / "p")
    assert [process.id for process in Table(tmp_path).table.all] == ["quiet"]


async def test_on_a_full_disk_a_lost_process_is_told_and_room_is_made_for_the_next(
    subject: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.executor.kept.MAX_KEPT", 1)
    write = ProcessLog.write

    def full(self: ProcessLog, process_id: str, what: str, fields: Mapping[str, Any]) -> None:
        if (tmp_path / "large").exists():
            raise OSError(errno.ENOSPC, "no space")
        write(self, process_id, what, fields)

    for name in ("p", "large"):
        subject.table.start(name, spec())
        subject.table.started(name)
    subject.table.output("large", "stdout", 0, b"x")
    monkeypatch.setattr(ProcessLog, "write", full)
    subject.table.lose("the container ended")
    assert [end_of(subject, name).kind for name in ("p", "large")] == ["sandbox_lost"] * 2
    subject.table.start("next", spec())
    assert [process.id for process in subject.table.all] == ["next"]
