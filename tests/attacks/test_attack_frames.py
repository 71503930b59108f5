"""A sandboxd that lies: frames of every wrong shape at the executor's control socket.

The law: whatever comes, nothing unforeseen is raised, memory stays bounded, and who comes next is served. What the
liar's own sandbox loses by it is its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import itertools
import socket
import struct
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from qila.executor.v1 import executor_pb2 as pb
from services.executor import files, processes, stdin, trees
from services.executor.agent import agent as agents
from services.executor.agent.agent import Agent, bind_listener
from services.executor.agent.frames import encode_frame
from services.executor.errors import AgentUnavailableError, ExecutorError
from services.executor.file_watch_wire import pack_watch_event
from services.executor.file_watches import parsed_end, parsed_event
from services.executor.file_wire import (
    pack_entry,
    pack_file_info,
    pack_file_part,
    pack_part,
    pack_summary,
    pack_tree_part,
)
from services.executor.process import Process, ProcessSpec
from services.executor.process_wire import pack_event
from services.executor.processes import ProcessTable

from .frame import Setting, attack

# Where the law is broken, loops end in the middle, and connections with them.
pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:.*repr"
    ),
]

WELCOME = {"type": "welcome", "protocol": 1, "toolchains": {}, "processes": []}
SPEC = ProcessSpec(
    argv=("true",), env={}, cwd="/", user="program", timeout_ms=0,
    output_limit_bytes=1 << 20, end_at_output_limit=False, background=False, stdin=True,
)  # fmt: skip
MEBIBYTE = 1 << 20
PATIENT = settings(
    max_examples=400,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)

ODD_VALUES: dict[str, tuple[Any, ...]] = {
    "numbers": (0, 1, -1, 2**31, 2**63 - 1, 2**63, 10**30, 0.5, float("nan"), float("inf"), True),
    "texts": ("", "\ud800", "\0", "x" * 5000, "../..", "stdout"),
    "shapes": (None, [], {}, [[]], [{}]),
}
ODD = [value for values in ODD_VALUES.values() for value in values]
ROW = {"name": "a", "kind": "file", "size": 1, "mtime_ns": 1, "executable": False, "link_target": ""}
ENVIRONMENT = {"ecosystem": "python", "fingerprint": "0" * 64, "current": True}
SURVEYED = {
    "digest": "0",
    "file_count": 1,
    "skipped_count": 0,
    "environments": [ENVIRONMENT],
    "own_directories": [],
    "unmanaged": [],
}
# What an honest sandboxd says, of the calls that are made below and of the process that runs.
HONEST: tuple[dict[str, Any], ...] = (
    WELCOME
    | {
        "processes": [
            {
                "process": "known",
                "state": "running",
                "offsets": {"stdout": 0, "stderr": 0, "terminal": 0},
                "input": {"accepted": 0, "window": 9, "ended": False},
            }
        ]
    },
    {"type": "input", "process": "known", "accepted": 0, "window": 9, "ended": False},
    {"type": "input", "process": "known", "accepted": 9, "window": 99, "ended": True},
    {"type": "started", "process": "known", "pid": 7},
    {"type": "output", "process": "known", "stream": "stdout", "offset": 0},
    *(
        {
            "type": "ended",
            "process": "known",
            "offsets": {"stdout": 9, "stderr": 0, "terminal": 0},
            "oom_kills": 0,
            "end": end,
        }
        for end in (
            {"kind": "exited", "code": 0},
            {"kind": "signaled", "signal": 9},
            {"kind": "start_failed", "error": "ENOENT", "detail": "none"},
            {"kind": "unkillable", "detail": "none"},
        )
    ),
    {"type": "data", "call": 1, "files": [ROW, ROW]},
    {"type": "result", "call": 1},
    {"type": "error", "call": 1, "kind": "not_found", "message": "none"},
    {"type": "data", "call": 2, "index": 0},
    {"type": "data", "call": 2, "index": 0, "end": {"size": 1, "executable": False}},
    {"type": "data", "call": 2, "index": 0, "error": {"kind": "io", "message": "none"}},
    {"type": "data", "call": 3, "entries": [["a", 1, 1, 1, 1], ["b", 1, 1, 1, 1]]},
    {"type": "result", "call": 3, **SURVEYED},
    {"type": "result", "call": 4, "file": ROW},
    {"type": "data", "call": 5, "size": 1, "mtime_ns": 1, "executable": False},
    {"type": "result", "call": 5, "size": 1, "sha256": "0"},
    {"type": "data", "call": 6, "etag": "0", "size": 1, "entry_count": 1, "skipped_count": 1},
    {"type": "result", "call": 6, "size": 1, "sha256": "0"},
    {"type": "data", "call": 7, "kind": "different"},
    {"type": "data", "call": 7, "kind": "beyond"},
    {"type": "result", "call": 7},
)


def places(value: Any, so_far: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a header, each as the keys that lead there."""
    pairs: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*so_far, key)
        yield from places(inner, (*so_far, key))


def changed(header: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy of a header with another value at a place."""
    copied = copy.deepcopy(header)
    holder: Any = copied
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    return copied


@st.composite
def lies(draw: st.DrawFn) -> bytes:
    """An honest frame with one thing wrong."""
    header = draw(st.sampled_from(HONEST))
    place = draw(st.sampled_from(sorted(places(header), key=repr)))
    payload = draw(st.sampled_from([b"", b"x", b"x" * 9, b"x" * 65_536]))
    return encode_frame(changed(header, place, draw(st.sampled_from(ODD))), payload)


def whole(text: bytes) -> bytes:
    return struct.pack(">II", len(text), 0) + text


frames = st.one_of(
    lies(),
    lies(),
    st.builds(encode_frame, st.sampled_from(HONEST)),
    st.binary(max_size=64),
    st.builds(lambda h, p: struct.pack(">II", h, p) + b"{}", st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.builds(whole, st.binary(max_size=200)),
    st.sampled_from(["brackets", "digits"]).map(
        lambda of: whole(b"[" * 100_000 if of == "brackets" else b'{"a":' + b"9" * 9_000)
    ),
)


async def no_files() -> AsyncIterator[trees.TreeFile]:
    """What a client has that has nothing."""
    for _ in range(0):
        yield trees.TreeFile(path="", size=0, sha256="", executable=False)


class Executor:
    """The executor's side of one sandbox, and whatever was raised in it that nobody foresaw."""

    def __init__(self, directory: Path) -> None:
        self.unforeseen: list[str] = []
        self.path = directory / "control.sock"
        self.table = ProcessTable(
            "sb_test",
            directory / "processes",
            environment={},
            send=self.send,
            kill_container=lambda _: None,
            on_disconnect=lambda: None,
        )
        self.agent = Agent("sb_test", self.table)

    def send(self, header: Any, payload: bytes = b"") -> None:
        self.agent.send(header, payload)

    def note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.unforeseen.append(repr(context.get("exception") or context["message"]))

    async def look(self) -> None:
        """Does what the servicer does for its callers: only the executor's own errors may come of it."""
        process = self.table.find("known")
        works = (
            self._list(),
            self._read(),
            self._survey(),
            self._stat(),
            self._part(),
            self._tree(),
            self._compare(),
            self._watch_files(),
            self._watch(process),
            self._write(process),
        )
        ends = await asyncio.gather(*works, return_exceptions=True)
        self.unforeseen += [repr(end) for end in ends if end is not None and not isinstance(end, ExecutorError)]

    async def _list(self) -> None:
        pb.ListFilesResponse(files=map(pack_file_info, await files.list_directory(self.agent, path="")))

    async def _read(self) -> None:
        async for part in files.read(self.agent, paths=["a"], max_file_bytes=0, max_total_bytes=0, user="program"):
            pack_file_part(part)

    async def _stat(self) -> None:
        pb.StatFileResponse(file=pack_file_info(await files.stat(self.agent, path="a")))

    async def _part(self) -> None:
        async for part in files.read_part(self.agent, path="a", offset=0, length=0):
            pack_part(part)

    async def _tree(self) -> None:
        async for part in trees.read_tree(self.agent, path="", etag="", offset=0):
            pack_tree_part(part)

    async def _compare(self) -> None:
        async for found in trees.compare_tree(self.agent, path="", ignored_names=(), files=no_files()):
            pb.CompareTreeResponse(different=found.different, beyond=found.beyond)

    async def _survey(self) -> None:
        async for batch in files.survey(self.agent):
            if isinstance(batch, files.SurveySummary):
                pack_summary(batch, self.agent.toolchains, package_policy="", registry_urls={})
            else:
                pb.SurveyWorkspaceResponse(entries=map(pack_entry, batch))

    async def _watch_files(self) -> None:
        async with self.agent.call("watch", user="program", path="") as call:
            while (item := await call.next()) is not None:
                pack_watch_event(parsed_event(*item))
            pack_watch_event(parsed_end(await call.result()))

    async def _watch(self, process: Process) -> None:
        async for event in self.table.watch(process, {"stdout": 0, "stderr": 0, "terminal": 0}):
            pack_event(event)

    async def _write(self, process: Process) -> None:
        writer = self.table.write_stdin(process)
        pb.WriteStdinResponse(accepted=await writer.begin())
        await writer.write(0, b"x" * 20)
        for offset in (await writer.acknowledged(0), await writer.end(20)):
            pb.WriteStdinResponse(accepted=offset)

    async def greet(self) -> bool:
        """Whether an honest sandboxd is served."""
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        writer.write(encode_frame(WELCOME))
        try:
            served = await asyncio.wait_for(reader.readexactly(8), 10)
        finally:
            writer.close()
            await writer.wait_closed()
        return bool(served)


@asynccontextmanager
async def executor() -> AsyncIterator[Executor]:
    with tempfile.TemporaryDirectory(prefix="qila-") as directory:
        made = Executor(Path(directory))
        asyncio.get_running_loop().set_exception_handler(made.note)
        await made.agent.listen(bind_listener(made.path))
        yield made
        await made.agent.close()
        made.table.close()
        # The other ends are let go of before the loop is.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            await asyncio.wait(left, timeout=10)
        await asyncio.sleep(0)


async def lie(first: bytes, told: list[bytes]) -> list[str]:
    async with executor() as subject:
        reader, writer = await asyncio.open_unix_connection(str(subject.path))
        writer.write(first)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            # The executor answers a welcome; from then on it believes to speak with sandboxd.
            await asyncio.wait_for(reader.readexactly(8), 0.1 if first != encode_frame(WELCOME) else 10)
        looking = None
        if subject.agent.is_connected:
            subject.table.start("known", SPEC)
            looking = asyncio.create_task(subject.look())
            await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError):
            writer.write(b"".join(told))
            await writer.drain()
            writer.write_eof()
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        subject.table.lose("the sandbox is gone")
        if looking is not None:
            await asyncio.wait_for(looking, 10)
        if not await subject.greet():
            subject.unforeseen.append("who came next was not served")
        return subject.unforeseen


CHECKS = ("text_field", "optional_text_field", "count_field", "mapping_field", "list_field", "as_text", "as_count")


def take(subject: Any, name: str) -> Any:
    """In place of a check of a field, or of a value."""
    return subject[name] if isinstance(subject, dict) else subject


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def careless(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weakened executor takes every field for what it should be."""
    if setting is Setting.WEAKENED:
        for module, name in itertools.product((agents, files, processes, stdin, trees), CHECKS):
            monkeypatch.setattr(module, name, take, raising=False)


@attack(weakened="an executor that checks no field")
def test_lie_in_frames(setting: Setting, careless: None) -> list[str]:
    welcome = encode_frame(WELCOME)
    # Where it must come through it goes on until it does, which takes some hundred tries.
    patient = settings(PATIENT, max_examples=PATIENT.max_examples * (1 if setting is Setting.SHIPPED else 10))

    @patient
    @given(st.one_of(st.just(welcome), st.just(welcome), frames), st.lists(frames, max_size=8))
    def law(first: bytes, told: list[bytes]) -> None:
        unforeseen = asyncio.run(lie(first, told))
        assert not unforeseen, (unforeseen, [frame[:300] for frame in (first, *told)])

    try:
        law()
    except (AssertionError, TimeoutError) as error:
        return [repr(error), *getattr(error, "__notes__", [])]
    return []


@pytest.mark.parametrize("kind", ODD_VALUES)
@attack(weakened="an executor that checks no field")
def test_lie_in_each_field_with(setting: Setting, careless: None, kind: str) -> list[str]:
    welcome = encode_frame(WELCOME)
    evidence: list[str] = []
    for value, header in itertools.product(ODD_VALUES[kind], HONEST):
        for place in places(header):
            told = encode_frame(changed(header, place, value), b"x" if header["type"] == "output" else b"")
            evidence += [f"{header['type']} {place}: {raised}" for raised in asyncio.run(lie(welcome, [told]))]
        if evidence and setting is Setting.WEAKENED:
            break
    return evidence


def shout(path: Path, frame: bytes, count: int) -> None:
    """Sends a frame over and over, until it is hung up on."""
    with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
        connection.connect(str(path))
        connection.sendall(encode_frame(WELCOME))
        for _ in range(count):
            connection.sendall(frame)


def keep_all(table: ProcessTable, *told: Any) -> dict[str, int]:
    """In place of a spool: keeps whatever comes, of whatever process."""
    vars(table).setdefault("held", []).append(told)
    return {"stdout": 0, "stderr": 0, "terminal": 0}


FLOODS = {
    "headers of a call that nobody reads": encode_frame({"type": "data", "call": 1, "files": ["x" * 1_000_000]}),
    "bytes of a call that nobody reads": encode_frame({"type": "data", "call": 1, "index": 0}, b"x" * 65_536),
    "output of a process that does not run": encode_frame(
        {"type": "output", "process": "x" * 900_000, "stream": "stdout", "offset": 0}, b"x" * 65_536
    ),
}


@pytest.mark.parametrize("flood", FLOODS)
@attack(weakened="an executor that lets all wait")
async def test_flood_the_executor_with(setting: Setting, flood: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    frame = FLOODS[flood]
    if setting is Setting.WEAKENED:
        monkeypatch.setattr(agents, "MAX_WAITING_CALL_BYTES", 1 << 40)
        monkeypatch.setattr(ProcessTable, "output", keep_all)
    async with executor() as subject:
        tracemalloc.start()
        sending = asyncio.create_task(asyncio.to_thread(shout, subject.path, frame, (160 * MEBIBYTE) // len(frame)))
        # It may be hung up on before anybody has made a call.
        with contextlib.suppress(AgentUnavailableError):
            await subject.agent.wait_connected(10)
            async with subject.agent.call("read", paths=[]):
                await sending
        await sending
        peak = tracemalloc.get_traced_memory()[1] // MEBIBYTE
        tracemalloc.stop()
    return [peak] if peak > 64 else []


@attack(weakened="an executor that takes every connection")
async def test_open_a_thousand_connections_to_the_executor(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    if setting is Setting.WEAKENED:
        monkeypatch.setattr(agents, "MAX_CONNECTIONS", 1 << 20)
    async with executor() as subject:
        before = len(list(Path("/proc/self/fd").iterdir()))
        dialled = []
        for _ in range(300):
            reader, writer = await asyncio.open_unix_connection(str(subject.path))
            dialled.append(writer)
            # Whoever is hung up on is told at once.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.01)
        open_here = len(list(Path("/proc/self/fd").iterdir())) - before - len(dialled)
        for writer in dialled:
            writer.close()
    return [open_here] if open_here > 100 else []
