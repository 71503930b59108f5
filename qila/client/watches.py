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

from qila.client.event_streams import EventStream
from qila.client.silence import SILENCE_SECONDS
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

    def __init__(self, request: pb.WatchFilesRequest) -> None:
        self._request = request
        self.begun = False
        self.ended: pb.WatchEnded | None = None
        self._waiting: deque[FileEvent] = deque()

    @property
    def complete(self) -> bool:
        """Whether there is nothing to watch any more."""
        return self.ended is not None

    def open(self, stub: Any) -> Any:
        """Asks one of the clients' stubs for what changes from now on."""
        return stub.WatchFiles(self._request)

    def message_in(self, response: pb.WatchFilesResponse) -> pb.WatchFilesResponse:
        """What that call has answered."""
        return response

    def take(self, message: pb.WatchFilesResponse) -> None:
        """Takes over what came."""
        match message.WhichOneof("event"):
            case "ready":
                if self.begun:
                    self._waiting.append(RESYNC)
                self.begun = True
            case "changes":
                self._waiting.extend(message.changes.changes)
            case "overflow":
                self._waiting.append(RESYNC)
            case "ended":
                self.ended = message.ended
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
        self._state = WatchState(request)
        self._stream = EventStream(
            stub,
            self._state,
            reconnect_seconds=reconnect_seconds,
            silence_seconds=silence_seconds,
            pause=pause,
        )

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
            self._stream.receive()
        return self

    def __next__(self) -> FileEvent:
        while (event := self._state.next()) is None:
            next(self._stream)
        return event

    def close(self) -> None:
        """Stops watching, and an iteration in another thread."""
        self._stream.close()
