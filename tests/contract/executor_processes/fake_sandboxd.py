"""sandboxd in memory, as far as processes go: `cat` and `sleep`, and what survives a lost connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.executor.agent.frames import Header, encode_frame, read_frame
from services.executor.runtime.port import SandboxSpec

WAITING = 1 << 20
# What a pipe of the kernel holds.
PIPE = 1 << 16
STREAMS = ("stdout", "stderr", "terminal")


@dataclass(kw_only=True)
class _Program:
    argv: list[str]
    has_input: bool
    is_terminal: bool
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    end: Mapping[str, Any] | None = None

    @property
    def reads(self) -> bool:
        return self.argv[0] == "cat"

    @property
    def output(self) -> bytes:
        return bytes(self.data) if self.reads else b""

    @property
    def stream(self) -> str:
        return "terminal" if self.is_terminal else "stdout"

    def lengths(self) -> dict[str, int]:
        return dict.fromkeys(STREAMS, 0) | {self.stream: len(self.output)}

    def state(self) -> dict[str, Any]:
        taken = len(self.data) if self.reads else min(len(self.data), PIPE)
        return {"accepted": len(self.data), "window": taken + WAITING, "ended": self.ended}


class FakeSandboxd:
    """Dials the executor, and again whenever the connection ends."""

    def __init__(self, spec: SandboxSpec) -> None:
        self._path = str(spec.socket_directory / "control.sock")
        self._programs: dict[str, _Program] = {}
        self._sent: dict[str, int] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(self._path)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            try:
                await self._converse(reader)
            finally:
                self._writer.close()

    async def _converse(self, reader: asyncio.StreamReader) -> None:
        rows = [
            {"process": name, "state": "running", "offsets": program.lengths(), "input": program.state()}
            for name, program in self._programs.items()
        ]
        self._send({"type": "welcome", "protocol": 2, "toolchains": {}, "processes": rows})
        while (frame := await read_frame(reader)) is not None:
            self._obey(frame.header, frame.payload)

    def _send(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        assert self._writer is not None
        self._writer.write(encode_frame(header, payload))

    def _obey(self, header: Header, payload: bytes) -> None:
        if header["type"] == "resume":
            self._resume(header["processes"])
            return
        name = header.get("process", "")
        if header["type"] == "start":
            terminal = "terminal" in header
            self._programs[name] = _Program(
                argv=header["argv"], has_input=header["stdin"] or terminal, is_terminal=terminal
            )
            self._sent[name] = 0
            self._send({"type": "started", "process": name, "pid": 7})
        program = self._programs.get(name)
        if program is not None:
            self._tell(name, program, header, payload)
        if header["type"] == "forget":
            self._programs.pop(name, None)

    def _resume(self, offsets: Mapping[str, Mapping[str, int]]) -> None:
        for name, program in self._programs.items():
            self._sent[name] = offsets[name][program.stream]
            self._pump(name, program)

    def _tell(self, name: str, program: _Program, header: Header, payload: bytes) -> None:
        match header["type"]:
            case "input":
                program.data += payload[len(program.data) - header["offset"] :]
                program.ended = program.ended or header.get("end", False)
                if program.ended and program.reads and not program.is_terminal:
                    program.end = {"kind": "exited", "code": 0}
            case "signal":
                program.end = {"kind": "signaled", "signal": header["signal"]}
            case "cancel":
                program.end = program.end or {"kind": "cancelled"}
        if program.has_input and header["type"] in {"start", "input"}:
            self._send({"type": "input", "process": name, **program.state()})
        if header["type"] != "forget":
            self._pump(name, program)

    def _pump(self, name: str, program: _Program) -> None:
        while self._sent[name] < len(program.output):
            offset = self._sent[name]
            data = program.output[offset : offset + (1 << 16)]
            self._send({"type": "output", "process": name, "stream": program.stream, "offset": offset}, data)
            self._sent[name] += len(data)
        if program.end is not None:
            end = {"type": "ended", "process": name, "end": program.end, "offsets": program.lengths(), "oom_kills": 0}
            self._send(end)
