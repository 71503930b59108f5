r"""What changes below a directory of a workspace, across lost connections.

>>> sandbox = client.create("python")
>>> with client.watch(sandbox.id, ignored_names=["node_modules"]) as watch:
...     known = {file.name for file in client.ls(sandbox.id, depth=64)}
...     written = client.put(sandbox.id, "notes.txt", io.BytesIO(b"hello"))
...     for change in watch:
...         if isinstance(change, Resync):
...             known = {file.name for file in client.ls(sandbox.id, depth=64)}
...         else:
...             print(change.path, change.size)
...             break
notes.txt 5
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc

from qila.client.errors import QilaError, UnavailableError, from_rpc_error
from qila.client.position import Patience, broken_stream
from qila.client.silence import SILENCE_SECONDS, SilenceWatch
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceStub


@dataclass(frozen=True)
class Resync:
    """Some of what happened was lost, or may have been: list again. From here on nothing is missed."""


RESYNC: Final = Resync()
FileEvent = pb.FileChange | Resync
"""What a watch iterates over."""


def watch_request(
    sandbox_id: str, path: str, depth: int, patterns: Sequence[str], ignored_names: Sequence[str]
) -> pb.WatchFilesRequest:
    """The request to watch a directory."""
    return pb.WatchFilesRequest(
        sandbox_id=sandbox_id, path=path, depth=depth, patterns=patterns, ignored_names=ignored_names
    )


class WatchState:
    """What was heard of one watch, over all of its connections. Pure: both clients share it."""

    def __init__(self) -> None:
        self.begun = False
        self.ended: pb.WatchEnded | None = None
        self._waiting: deque[FileEvent] = deque()

    def take(self, response: pb.WatchFilesResponse) -> None:
        """Takes over what came."""
        match response.WhichOneof("event"):
            case "ready":
                if self.begun:
                    self._waiting.append(RESYNC)
                self.begun = True
            case "changes":
                self._waiting.extend(response.changes.changes)
            case "overflow":
                self._waiting.append(RESYNC)
            case "ended":
                self.ended = response.ended
            case _:
                return

    def next(self) -> FileEvent | None:
        """The next one that waits to be told."""
        return self._waiting.popleft() if self._waiting else None


class FileWatch:
    """Iterates over what changes, each as a FileChange, and a Resync where something was lost; stops when it is over.

    As a context manager, and after `start`, it is ready: a list that is made then, and the changes from then on, miss
    nothing. A lost connection is taken up again, for at most `reconnect_seconds` without a word, and told as a Resync;
    then it raises UnavailableError. Once the gateway has told a heartbeat, silence for `silence_seconds` counts as a
    lost connection.
    """

    def __init__(
        self,
        stub: GatewayServiceStub,
        request: pb.WatchFilesRequest,
        *,
        reconnect_seconds: float = 60,
        silence_seconds: float = SILENCE_SECONDS,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stub = stub
        self._request = request
        self._state = WatchState()
        self._reconnect_seconds = reconnect_seconds
        self._pause = pause
        # The call's iterator; the stub names no public type for it.
        self._call: Any = None
        self._closed = False
        self._silent = False
        self._silence = SilenceWatch(silence_seconds, self._break_off)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    @property
    def ended(self) -> pb.WatchEnded | None:
        """Why it is over; None until it is."""
        return self._state.ended

    def start(self) -> Self:
        """Returns once nothing is missed any more. A repeat does nothing. QilaError: it cannot be watched."""
        while not self._state.begun:
            self._receive()
        return self

    def __next__(self) -> FileEvent:
        while (event := self._state.next()) is None:
            if self._state.ended is not None or self._closed:
                raise StopIteration
            try:
                self._receive()
            except QilaError:
                if self._closed:
                    raise StopIteration from None
                raise
        return event

    def close(self) -> None:
        """Stops watching, and an iteration in another thread."""
        self._closed = True
        self._silence.stop()
        self._drop()

    def _break_off(self) -> None:
        self._silent = True
        call = self._call
        if call is not None:
            call.cancel()

    def _drop(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _receive(self) -> None:
        patience = Patience(self._reconnect_seconds)
        while True:
            try:
                response = self._next_of_call()
            except UnavailableError:
                pause = patience.next_pause()
                if not self._state.begun or pause is None or self._closed:
                    raise
            else:
                self._take(response)
                return
            self._pause(pause)

    def _take(self, response: pb.WatchFilesResponse) -> None:
        self._state.take(response)
        self._silence.heard()
        if self._state.ended is not None:
            self._silence.stop()
            self._drop()
        elif response.HasField("heartbeat"):
            self._silence.start()

    def _next_of_call(self) -> pb.WatchFilesResponse:
        try:
            call = self._call = self._call or self._stub.WatchFiles(self._request)
            response: pb.WatchFilesResponse | None = None if self._closed else next(call, None)
        except grpc.RpcError as error:
            self._call = None
            if self._silent:
                self._silent = False
                raise broken_stream() from error
            raise from_rpc_error(error) from error
        except BaseException:
            # An interrupted call cannot be trusted to have lost nothing: the next one begins with a Resync.
            self._drop()
            raise
        if response is None:
            self._call = None
            raise broken_stream()
        return response
