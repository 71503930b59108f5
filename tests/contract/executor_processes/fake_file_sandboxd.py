"""sandboxd without a container, as far as files go: its own calls, in threads, over a directory of the host."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox.sandboxd.qila_sandboxd.files import answer
from services.executor.agent.frames import Header, encode_frame, read_frame
from services.executor.runtime.port import SandboxSpec


class FakeFileSandboxd:
    """Dials the executor once, and carries out its calls until it is stopped."""

    def __init__(self, spec: SandboxSpec, root: Path) -> None:
        self._path = str(spec.socket_directory / "control.sock")
        self._root = root
        self._calls: dict[int, asyncio.StreamWriter] = {}
        self._carriers: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        reader, self._writer = await asyncio.open_unix_connection(self._path)
        self._send({"type": "welcome", "protocol": 2, "toolchains": {}, "processes": []})
        try:
            while (frame := await read_frame(reader)) is not None:
                await self._obey(frame.header, frame.payload)
        finally:
            self._writer.close()
            for writer in self._calls.values():
                writer.close()

    def _send(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        assert self._writer is not None
        self._writer.write(encode_frame(header, payload))

    async def _obey(self, header: Header, payload: bytes) -> None:
        if header["type"] == "call":
            await self._start(header)
        call = self._calls.get(header.get("call", 0))
        if call is None:
            return
        if header["type"] == "abort":
            call.close()
        elif header["type"] in {"chunk", "credit"}:
            call.write(encode_frame(header, payload))

    async def _start(self, header: Header) -> None:
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._answer, args=(theirs, header), daemon=True).start()
        reader, self._calls[header["call"]] = await asyncio.open_unix_connection(sock=ours)
        carrier = asyncio.create_task(self._carry(header["call"], reader))
        self._carriers.add(carrier)
        carrier.add_done_callback(self._carriers.discard)

    async def _carry(self, number: int, reader: asyncio.StreamReader) -> None:
        while (frame := await read_frame(reader)) is not None:
            self._send(frame.header | {"call": number}, frame.payload)
        self._calls.pop(number).close()

    def _answer(self, connection: socket.socket, header: Header) -> None:
        with connection, contextlib.suppress(SystemExit):
            answer(connection, str(self._root), header)
