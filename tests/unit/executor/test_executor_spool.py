from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from services.executor.errors import ProtocolError
from services.executor.process_log import ProcessLog
from services.executor.spool import TAIL_BYTES, Chunk, Cursor, Spool


def read_all(spool: Spool, *, stdout: int = 0, stderr: int = 0, ended: bool = True) -> list[Chunk]:
    cursor = Cursor(position={"stdout": stdout, "stderr": stderr, "terminal": 0})
    chunks = []
    while (chunk := spool.read(cursor, ended=ended)) is not None:
        chunks.append(chunk)
    return chunks


def joined(chunks: list[Chunk], stream: str) -> bytes:
    return b"".join(chunk.data for chunk in chunks if chunk.stream == stream)


def test_streams_come_back_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "p", 1 << 20)
    spool.append("stdout", 0, b"one")
    spool.append("stderr", 0, b"two")
    spool.append("stdout", 3, b"three")
    assert [(c.stream, c.offset, c.data) for c in read_all(spool)] == [
        ("stdout", 0, b"one"),
        ("stderr", 0, b"two"),
        ("stdout", 3, b"three"),
    ]


def test_a_watcher_resumes_at_its_offsets(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "p", 1 << 20)
    spool.append("stdout", 0, b"abcdef")
    spool.append("stderr", 0, b"uvw")
    chunks = read_all(spool, stdout=4, stderr=3)
    assert [(c.stream, c.offset, c.data) for c in chunks] == [("stdout", 4, b"ef")]


def test_bytes_sent_again_are_stored_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "p", 1 << 20)
    spool.append("stdout", 0, b"abcd")
    spool.append("stdout", 2, b"cdef")
    spool.append("stdout", 0, b"ab")
    assert joined(read_all(spool), "stdout") == b"abcdef"
    assert spool.received == {"stdout": 6, "stderr": 0, "terminal": 0}


def test_endless_output_of_a_terminal_is_kept_up_to_the_limit_and_counted_beyond(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "p", 1000)
    for offset in range(0, 10 << 20, 1 << 16):
        spool.append("terminal", offset, bytes(1 << 16))
    spool.finish({"stdout": 0, "stderr": 0, "terminal": 10 << 20})
    assert sum(path.stat().st_size for path in (tmp_path / "p").iterdir()) == 1000 + TAIL_BYTES
    assert spool.dropped == (10 << 20) - 1000 - TAIL_BYTES


def test_a_hole_below_the_limit_is_a_broken_protocol(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "p", 1 << 20)
    with pytest.raises(ProtocolError):
        spool.append("stdout", 1, b"x")


def test_an_unknown_stream_is_a_broken_protocol(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError):
        Spool(tmp_path / "p", 10).append("../../etc", 0, b"x")


def test_a_later_executor_reads_the_very_same_bytes(tmp_path: Path) -> None:
    first = Spool(tmp_path / "p", 1 << 20)
    first.append("stdout", 0, b"kept")
    first.close()
    second = Spool(tmp_path / "p", 1 << 20)
    assert second.received == {"stdout": 4, "stderr": 0, "terminal": 0}
    second.append("stdout", 4, b" on")
    assert joined(read_all(second), "stdout") == b"kept on"


def test_beyond_the_limit_head_and_tail_are_kept_and_the_rest_is_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "p", 1000)
    data = bytes(range(256)) * 1024
    for start in range(0, len(data), 4096):
        spool.append("stdout", start, data[start : start + 4096])
    assert read_all(spool, ended=False)[-1].offset + len(read_all(spool, ended=False)[-1].data) == 1000
    spool.finish({"stdout": len(data), "stderr": 0, "terminal": 0})
    head, tail = read_all(spool)
    assert (head.offset, head.data) == (0, data[:1000])
    assert (tail.offset, tail.data) == (len(data) - TAIL_BYTES, data[-TAIL_BYTES:])
    assert spool.dropped == len(data) - 1000 - TAIL_BYTES
    spool.close()
    assert joined(read_all(Spool(tmp_path / "p", 1000)), "stdout") == data[:1000] + data[-TAIL_BYTES:]


def test_alternating_streams_do_not_grow_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.executor.spool.MAX_RUNS", 10)
    spool = Spool(tmp_path / "p", 1 << 20)
    for index in range(100):
        spool.append("stdout", index, b"o")
        spool.append("stderr", index, b"e")
    assert len(spool._runs) <= 10
    chunks = read_all(spool)
    assert joined(chunks, "stdout") == b"o" * 100
    assert joined(chunks, "stderr") == b"e" * 100


def test_ended_processes_hold_no_files_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    spools = [Spool(tmp_path / str(index), 1 << 20) for index in range(50)]
    for spool in spools:
        spool.append("stdout", 0, b"out")
        spool.append("stderr", 0, b"err")
        spool.finish({"stdout": 3, "stderr": 3, "terminal": 0})
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    assert joined(read_all(spools[0]), "stderr") == b"err"


def test_bytes_that_a_full_disk_does_not_take_are_stored_when_they_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "p", 1 << 20)
    spool.append("stdout", 0, b"before")
    write = os.pwrite

    def nearly_full(descriptor: int, data: bytes, position: int) -> int:
        if position > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:2], position)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", nearly_full)
        with pytest.raises(OSError, match="No space left"):
            spool.append("stdout", 6, b" and after")
    assert spool.received == {"stdout": 6, "stderr": 0, "terminal": 0}
    spool.append("stdout", 6, b" and after")
    assert joined(read_all(spool), "stdout") == b"before and after"
    assert joined(read_all(Spool(tmp_path / "p", 1 << 20)), "stdout") == b"before and after"


def test_a_line_of_the_log_that_a_full_disk_tears_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ProcessLog(tmp_path / "log")
    log.write("p", "spec", {"a": 1})
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda fd, data: write(fd, data[:5]))
        with pytest.raises(OSError, match="no room"):
            log.write("p", "started", {})
    log.write("p", "ended", {})
    log.close()
    assert [(process, what) for process, what, _ in ProcessLog(tmp_path / "log").read()] == [
        ("p", "spec"),
        ("p", "ended"),
    ]
