"""Calls as sandboxd's children carry them out, without a container."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sandbox.sandboxd.qila_sandboxd.files import answer
from sandbox.sandboxd.qila_sandboxd.frames import Channel

# The last chunk stays out: a stream that broke off.
BROKEN_OFF = object()


def call(
    root: Path, op: str, chunks: Iterable[bytes] = (), *, sha256: object = "", **fields: Any
) -> tuple[dict[str, Any], list[tuple[dict[str, Any], bytes]]]:
    """A whole call: its end and its data. Of a stream that breaks off the end is empty."""
    with child(root, {"op": op, "user": "program", "transfer": "", "offset": 0} | fields) as channel:
        sender = threading.Thread(target=_send, args=(channel, chunks, sha256))
        if op.startswith(("write", "compare")):
            sender.start()
        end, data = _receive(channel)
        if op.startswith(("write", "compare")):
            sender.join()
        return end, data


@contextmanager
def child(root: Path, header: dict[str, Any]) -> Iterator[Channel]:
    """The first process's end of a call under way."""
    ours, theirs = socket.socketpair()
    answering = threading.Thread(target=_answer, args=(theirs, str(root), header))
    answering.start()
    with ours:
        yield Channel(ours)
    answering.join()


def _answer(connection: socket.socket, root: str, header: dict[str, Any]) -> None:
    with connection:
        try:
            answer(connection, root, header)
        except SystemExit:
            return


def _send(channel: Channel, chunks: Iterable[bytes], sha256: object) -> None:
    try:
        for chunk in chunks:
            channel.send({"type": "chunk"}, chunk)
        if sha256 is BROKEN_OFF:
            channel.connection.shutdown(socket.SHUT_WR)
        else:
            channel.send({"type": "chunk", "last": True, "sha256": sha256})
    except BrokenPipeError:
        # It has refused what came so far.
        return


def _receive(channel: Channel) -> tuple[dict[str, Any], list[tuple[dict[str, Any], bytes]]]:
    data: list[tuple[dict[str, Any], bytes]] = []
    while (frame := channel.receive()) is not None:
        if frame[0]["type"] != "data":
            return frame[0], data
        data.append(frame)
        # It may have said all and gone.
        with suppress(BrokenPipeError):
            channel.send({"type": "credit", "bytes": len(frame[1])})
    return {}, data
