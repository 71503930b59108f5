"""Asserts the profile from inside a real container: made as every sandbox is, asked by a program, removed."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from sandbox.sandboxd.qila_sandboxd.environment import environment
from sandbox.sandboxd.qila_sandboxd.linux import PROGRAM_USER, USERS
from services.executor.agent.agent import Agent, bind_listener
from services.executor.agent.frames import Header, mapping_field
from services.executor.assertions import refused
from services.executor.assertions.report import MAX_REPORT_BYTES, Report, ReportError, read_report
from services.executor.assertions.rows import Expectation, Row, rows
from services.executor.errors import AgentUnavailableError, ProbeError, ProfileError, ProtocolError
from services.executor.limit_variables import limit_variables
from services.executor.profile import PROFILE_PATH, Limits, Profile
from services.executor.runtime.docker_container import masked_paths
from services.executor.runtime.port import Runtime, SandboxSpec

# Always the same, so that one which a killed executor left is found by its name; none of the minted ids.
PROBE_ID = f"sb_{'probe':a<26}"
PROBE_PATH = PROFILE_PATH.with_name("probe.py")
CONNECT_TIMEOUT_S = 20
PROBE_TIMEOUT_S = 20
SHOWN_CHARACTERS = 200

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Asserted:
    """What an image was seen to be: rows that all hold, and the names and versions of its toolchains."""

    rows: Sequence[Row]
    toolchains: Mapping[str, str]


async def assert_profile(
    runtime: Runtime, profile: Profile, *, image: str, limits: Limits, run_directory: Path
) -> Asserted:
    """Asserts every row inside a container of the image.

    Raises ProfileError naming the first row that does not hold, ProbeError if the probe gives no answer, EngineError,
    ImageMissingError, AgentUnavailableError.
    """
    directory = run_directory / "sb" / PROBE_ID
    spec = SandboxSpec(sandbox_id=PROBE_ID, image=image, limits=limits, socket_directory=directory)
    masked = tuple(masked_paths(profile.masked))
    found: list[Row] = []
    async with _container(runtime, spec) as (agent, programs):
        for user, number in USERS.items():
            wanted = Expectation(
                profile=profile,
                limits=limits,
                user=number,
                owns_workspace=number == PROGRAM_USER,
                # What lies in the probe's own directory counts, not what lies at that path on the host.
                environment=environment(number, dict(limit_variables(limits)), directory / "trust" / "ca.pem"),
                masked=masked,
                sandbox_id=PROBE_ID,
            )
            found += [_of_user(user, row) for row in rows(await _ask(agent, programs, user, wanted), wanted)]
        toolchains = dict(agent.toolchains)
    _judge(found)
    return Asserted(rows=found, toolchains=toolchains)


def _of_user(user: str, row: Row) -> Row:
    return Row(name=f"{user}: {row.name}", expected=row.expected, found=row.found, holds=row.holds)


def _judge(found: Sequence[Row]) -> None:
    broken = [row for row in found if not row.holds]
    for row in broken:
        log.error("the profile does not hold", row=row.name, expected=row.expected, found=row.found)
    if broken:
        raise ProfileError(broken[0].name, broken[0].expected, broken[0].found, len(broken) - 1)


async def _ask(agent: Agent, programs: _Programs, user: str, wanted: Expectation) -> Report:
    source, questions = PROBE_PATH.read_text(encoding="utf-8"), json.dumps(_questions(wanted))
    agent.send(
        {
            "type": "start",
            "process": user,
            "argv": ["/usr/bin/python3", "-I", "-S", "-c", source, questions],
            "env": dict(programs.environment),
            "cwd": "/",
            "user": user,
            "timeout_ms": PROBE_TIMEOUT_S * 1000,
            "background": False,
        }
    )
    answer = await programs.answer(user)
    try:
        return read_report(answer)
    except ReportError as error:
        raise ProbeError(user, str(error)) from error


def _questions(wanted: Expectation) -> Mapping[str, Any]:
    """See sandbox/probe.py."""
    profile = wanted.profile
    return {
        "masked": wanted.masked,
        "read_only": profile.read_only,
        "tmpfs": list(profile.tmpfs),
        "sockets": profile.sockets,
        "calls": [(c.name, {"x86_64": c.x86_64, "aarch64": c.aarch64}, c.first) for c in refused.CALLS],
        "families": [(s.name, s.family, s.kind, s.protocol) for s in refused.SOCKETS],
    }


@asynccontextmanager
async def _container(runtime: Runtime, spec: SandboxSpec) -> AsyncIterator[tuple[Agent, _Programs]]:
    """A throw-away sandbox with its agent connected; one that was left behind goes first."""
    directory = spec.socket_directory
    programs = _Programs(limit_variables(spec.limits))
    agent = Agent(spec.sandbox_id, programs)
    await runtime.remove(spec.sandbox_id)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        await agent.listen(bind_listener(directory / "control.sock"))
        await runtime.create(spec)
        await runtime.start(spec.sandbox_id)
        await agent.wait_connected(CONNECT_TIMEOUT_S)
        yield agent, programs
    finally:
        await runtime.remove(spec.sandbox_id)
        await agent.close()
        shutil.rmtree(directory)


class _Programs:
    """Hears of the probe's processes, one of each user; the user's name is the process's id."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.environment = variables
        self._output: dict[tuple[str, str], bytearray] = {}
        self._ends: dict[str, asyncio.Future[Mapping[str, Any]]] = {}

    async def answer(self, user: str) -> bytes:
        """Standard output of a process that ends well. ProbeError on any other end."""
        try:
            end = await asyncio.wait_for(asyncio.shield(self._end(user)), PROBE_TIMEOUT_S + 5)
        except TimeoutError:
            raise ProbeError(user, f"no end within {PROBE_TIMEOUT_S + 5} s") from None
        if end.get("kind") != "exited" or end.get("code") != 0:
            last = bytes(self._output.get((user, "stderr"), b"")).decode(errors="replace")[-SHOWN_CHARACTERS:]
            raise ProbeError(user, f"the probe ended {str(end)[:SHOWN_CHARACTERS]}: {last!r}")
        return bytes(self._output.get((user, "stdout"), b""))

    def welcome(self, processes: Sequence[Header]) -> Mapping[str, Mapping[str, int]]:  # noqa: ARG002 - there is none
        """See ProcessEvents."""
        return {}

    def connected(self) -> None:
        """See ProcessEvents."""

    def started(self, process_id: str) -> None:
        """See ProcessEvents."""

    def output(self, process_id: str, stream: str, offset: int, data: bytes) -> Mapping[str, int]:
        """See ProcessEvents."""
        if process_id not in USERS or stream not in {"stdout", "stderr"}:
            raise ProtocolError("output of a process that does not run")
        kept = self._output.setdefault((process_id, stream), bytearray())
        if offset != len(kept) or len(kept) + len(data) > MAX_REPORT_BYTES:
            raise ProtocolError("output that is too long or has gaps")
        kept += data
        return {name: len(self._output.get((process_id, name), b"")) for name in ("stdout", "stderr")}

    def input(self, process_id: str, header: Header) -> None:  # noqa: ARG002 - it never has one
        """See ProcessEvents."""
        raise ProtocolError(f"an input of {process_id}")

    def ended(self, process_id: str, header: Header) -> None:
        """See ProcessEvents."""
        if process_id not in USERS:
            raise ProtocolError("an end of a process that does not run")
        end = self._end(process_id)
        if not end.done():
            end.set_result(mapping_field(header, "end"))

    def disconnected(self) -> None:
        """See ProcessEvents."""
        for user in USERS:
            end = self._end(user)
            if not end.done():
                end.set_exception(AgentUnavailableError(PROBE_ID, "the connection broke during the probe"))
                end.exception()  # whoever waits gets it; nobody may

    def _end(self, user: str) -> asyncio.Future[Mapping[str, Any]]:
        return self._ends.setdefault(user, asyncio.get_running_loop().create_future())
