from __future__ import annotations

import asyncio
import datetime
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from services.executor import audit_log
from services.executor.audit import MAX_WATCHERS, Audit, Wanted, exec_of
from services.executor.audit_log import AuditLog, AuditReader, Entry
from services.executor.egress.records import EgressRecord
from services.executor.errors import LimitError
from services.executor.process import Process, ProcessEnd, ProcessSpec
from services.executor.spool import Spool

SANDBOX = "sb_" + "a" * 26
NOW = datetime.datetime(2026, 11, 24, 12, 0, tzinfo=datetime.UTC)


def record(path: str = "/", **changes: Any) -> EgressRecord:
    fields: dict[str, Any] = {
        "sandbox": SANDBOX, "phase": "RUN", "uid": 1000, "method": "GET", "host": "h", "path": path, "status": 200,
        "verdict": "allowed", "rule": "pypi index", "bytes": 1, "digest": "",
    }  # fmt: skip
    return EgressRecord(**{**fields, **changes})


def append(log: AuditLog, *paths: str) -> None:
    for path in paths:
        log.append(time=NOW.isoformat(), exec_id="", record=record(path))


def everything(log: AuditLog, after: int = 0) -> list[Entry]:
    reader = AuditReader(log, after)
    found: list[Entry] = []
    while batch := reader.read():
        found += batch
    reader.close()
    return found


def test_what_is_written_is_read_after_kill_9(tmp_path: Path) -> None:
    first = AuditLog(tmp_path)
    append(first, "/a", "/b\\n\u2603", "/c")
    # Nothing is closed: the process is gone.
    later = AuditLog(tmp_path)
    append(later, "/d")
    assert [(entry.sequence, entry.record.path) for entry in everything(later)] == [
        (1, "/a"), (2, "/b\\n\u2603"), (3, "/c"), (4, "/d"),
    ]  # fmt: skip
    assert [entry.sequence for entry in everything(later, after=2)] == [3, 4]
    assert everything(later, after=9) == []


@pytest.mark.parametrize("torn", [b"{", b'{"sequence":3,"time":"x"'])
def test_a_torn_last_line_is_forgotten(tmp_path: Path, torn: bytes) -> None:
    append(AuditLog(tmp_path), "/a", "/b")
    (file,) = tmp_path.iterdir()
    with file.open("ab") as output:
        output.write(torn)
    later = AuditLog(tmp_path)
    append(later, "/c")
    assert [(entry.sequence, entry.record.path) for entry in everything(later)] == [(1, "/a"), (2, "/b"), (3, "/c")]


def test_a_torn_first_line_of_a_file_does_not_repeat_sequences(tmp_path: Path) -> None:
    append(AuditLog(tmp_path), "/a")
    (tmp_path / f"{2:020}.jsonl").write_bytes(b'{"seq')
    later = AuditLog(tmp_path)
    append(later, "/b")
    assert [(entry.sequence, entry.record.path) for entry in everything(later)] == [(1, "/a"), (2, "/b")]


def test_the_oldest_go_first_and_the_bytes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "FILE_BYTES", 2000)
    log = AuditLog(tmp_path)
    append(log, *(f"/{number}" for number in range(200)))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 4 * 2000
    kept = [entry.sequence for entry in everything(log)]
    assert kept == list(range(kept[0], 201))
    assert 1 < kept[0] < 190
    assert [entry.sequence for entry in everything(AuditLog(tmp_path))] == kept


def test_a_slow_reader_holds_one_file_and_sees_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "FILE_BYTES", 2000)
    monkeypatch.setattr(audit_log, "_BLOCK_BYTES", 1000)
    log = AuditLog(tmp_path)
    append(log, "/first")
    reader = AuditReader(log, 0)
    assert [entry.sequence for entry in reader.read()] == [1]
    append(log, *(f"/{number}" for number in range(200)))
    rest = [entry.sequence for batch in iter(reader.read, []) for entry in batch]
    # The rest of its own file, then what is still there.
    assert rest[0] == 2
    assert rest == sorted(set(rest))
    assert rest[-1] == 201
    assert len(rest) < 200
    append(log, "/more")
    assert [entry.sequence for entry in reader.read()] == [202]
    reader.close()


def test_a_full_disk_leaves_a_gap_and_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(tmp_path)
    append(log, "/a")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:20]))
    with pytest.raises(OSError, match="no space") as caught:
        append(log, "/b")
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.setattr(os, "write", write)
    append(log, "/c")
    assert [(entry.sequence, entry.record.path) for entry in everything(log)] == [(1, "/a"), (3, "/c")]


class Table:
    """Processes as a test says."""

    def __init__(self, *processes: Process) -> None:
        self.all: Sequence[Process] = processes


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


def process(
    directory: Path, process_id: str, *, user: str = "program", background: bool = False, ended_ago: float | None = None
) -> Process:
    spec = ProcessSpec(
        argv=("x",), env={}, cwd="/", user=user, timeout_ms=0, output_limit_bytes=1, end_at_output_limit=False,
        background=background,
    )  # fmt: skip
    end = None
    if ended_ago is not None:
        time = (NOW - datetime.timedelta(seconds=ended_ago)).isoformat()
        end = ProcessEnd(kind="exited", time=time, lengths={}, dropped_bytes=0)
    return Process(id=process_id, spec=spec, directory=directory, spool=Spool(directory / process_id, 1), end=end)


def test_the_exec_that_asked(directory: Path) -> None:
    def owner(row: EgressRecord, *processes: Process) -> str:
        return exec_of(row, processes, NOW)

    one, other = process(directory, "ex_a"), process(directory, "ex_b")
    step = process(directory, "ex_i.install-1", user="install")
    ended_step = process(directory, "ex_i.install-0", user="install", ended_ago=60)
    compiling = process(directory, "ex_c.compile", user="install", background=True)
    install = record(phase="INSTALL", uid=1001)
    assert owner(record()) == ""
    assert owner(record(), one) == "ex_a"
    assert owner(record(), one, step, compiling) == "ex_a"
    assert owner(record(), one, other) == ""
    assert owner(record(), one, process(directory, "ex_b", ended_ago=0.5)) == "ex_a"
    assert owner(record(), process(directory, "ex_a", ended_ago=0.5)) == "ex_a"
    assert owner(record(), process(directory, "ex_a", ended_ago=9)) == ""
    assert owner(record(), process(directory, "ex_a", ended_ago=1), process(directory, "ex_b", ended_ago=1)) == ""
    assert owner(install, one, other, ended_step, step) == "ex_i"
    assert owner(install, one, ended_step) == "ex_i"
    assert owner(record(uid=1001), one, step) == "ex_i"
    assert owner(record(uid=1001), one, compiling) == ""


async def watched(audit: Audit, wanted: Wanted | None = None, *, follow: bool = False) -> list[int]:
    batches = audit.watch(SANDBOX, wanted or Wanted(), follow=follow)
    return [entry.sequence async for batch in batches for entry in batch]


async def test_filters_and_a_live_tail(tmp_path: Path) -> None:
    audit = Audit()
    audit.open(SANDBOX, tmp_path / "egress", Table(process(tmp_path, "ex_a")))
    audit.take(record("/1"))
    audit.take(record("/2", verdict="refused", rule="method"))
    audit.take(record("/3", uid=1001, verdict="refused", rule="no install is running"))
    audit.take(record("/4", sandbox="sb_" + "z" * 26))
    assert audit.last_sequence(SANDBOX) == 3
    assert await watched(audit) == [1, 2, 3]
    assert await watched(audit, Wanted(verdict="refused")) == [2, 3]
    assert await watched(audit, Wanted(exec_id="ex_a", verdict="refused")) == [2]
    assert await watched(audit, Wanted(after=2)) == [3]
    tail = asyncio.create_task(watched(audit, Wanted(verdict="refused", after=2), follow=True))
    await asyncio.sleep(0)
    audit.take(record("/5"))
    audit.take(record("/6", verdict="refused"))
    audit.close(SANDBOX)
    assert await asyncio.wait_for(tail, 10) == [3, 5]
    assert await watched(audit) == []


async def test_too_many_watchers_are_refused_and_leaving_makes_room(tmp_path: Path) -> None:
    audit = Audit()
    audit.open(SANDBOX, tmp_path / "egress", Table())
    audit.take(record())
    streams = [audit.watch(SANDBOX, Wanted(), follow=True) for _ in range(MAX_WATCHERS)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(LimitError):
        await watched(audit)
    await streams[0].aclose()
    assert await watched(audit) == [1]
    for stream in streams:
        await stream.aclose()
