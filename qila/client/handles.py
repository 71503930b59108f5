r"""One exec in the caller's hand: its events, its input, its terminal, its end.

>>> with client.exec(sandbox_id, ["cat"], stdin=True) as run:
...     run.write_stdin(b"hello\n")
...     run.close_stdin()
...     for event in run:
...         if event.HasField("output"):
...             print(event.output.data)
b'hello\n'
>>> client.exec(sandbox_id, ["cat"], stdin=True).communicate(b"all at once").stdout
b'all at once'
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from qila.client.errors import QilaError, translated
from qila.client.execs import ExecStream
from qila.client.requests import resize_request
from qila.client.results import DEFAULT_RESULT_BYTES, Collector, ExecResult, TerminalSize
from qila.client.silence import SILENCE_SECONDS
from qila.client.stdin import EXEC_ENDED
from qila.client.stdin_writer import StdinWriter
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceStub


class Exec(ExecStream):
    """An exec: an iterator over its events, with the calls that steer it. Those start it, if it was not; QilaError.

    As a context manager it stops watching at its end; the exec itself runs on unless it is cancelled. One thread may
    iterate while others write, resize, signal and cancel.
    """

    def __init__(
        self,
        stub: GatewayServiceStub,
        request: pb.ExecRequest | pb.AttachExecRequest,
        *,
        reconnect_seconds: float = 60,
        call_seconds: float = 120,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        super().__init__(stub, request, reconnect_seconds=reconnect_seconds, silence_seconds=silence_seconds)
        self._call_seconds = call_seconds
        self._takes_input = isinstance(request, pb.ExecRequest) and request.stdin
        self._writer: StdinWriter | None = None
        self._writing = threading.Lock()

    def write_stdin(self, data: bytes) -> None:
        """Writes to the program's input; blocks while 1 MiB is not acknowledged.

        It goes on by itself after a lost connection. FailedPreconditionError: EXEC_ENDED, the program is gone;
        STDIN_NOT_OPEN, the exec was started without `stdin` or `terminal`. AbortedError: another writer took over.
        """
        self._stdin().write(data)

    def close_stdin(self) -> None:
        """The program reads end of file after what was written; on a terminal, write its end-of-file character."""
        self._stdin().end()

    def flush_stdin(self, seconds: float | None = None) -> bool:
        """Waits until all that was written can no longer be lost; False if that took longer than `seconds`.

        Raises as `write_stdin` does.
        """
        return self._stdin().flush(seconds)

    @property
    def stdin_failure(self) -> QilaError | None:
        """Why nothing more can be written; None while all is well."""
        return self._writer.failure if self._writer is not None else None

    def release_stdin(self) -> None:
        """Stops writing: what is not sent stays unsent, and the input stays open for another writer."""
        if self._writer is not None:
            self._writer.stop()

    def resize(self, rows: int, columns: int) -> None:
        """Gives its terminal another size."""
        self.start()
        request = resize_request(self.sandbox_id, self.exec_id, TerminalSize(rows, columns))
        with translated():
            self._stub.ResizeTerminal(request, timeout=self._call_seconds)

    def signal(self, number: int) -> None:
        """Sends a signal, as Linux numbers them, to the exec's process group."""
        self.start()
        request = pb.SignalExecRequest(sandbox_id=self.sandbox_id, exec_id=self.exec_id, signal=number)
        with translated():
            self._stub.SignalExec(request, timeout=self._call_seconds)

    def cancel(self) -> None:
        """Kills all that it started; one that has ended is fine."""
        self.start()
        request = pb.CancelExecRequest(sandbox_id=self.sandbox_id, exec_id=self.exec_id)
        with translated():
            self._stub.CancelExec(request, timeout=self._call_seconds)

    def wait(self) -> pb.ExecEnded:
        """Takes the events that are left, and answers how it ended."""
        for _ in self:
            pass
        return self._ended()

    def communicate(
        self,
        stdin: bytes = b"",
        *,
        max_bytes: int = DEFAULT_RESULT_BYTES,
        on_event: Callable[[pb.ExecEvent], None] | None = None,
    ) -> ExecResult:
        """Writes the whole input and its end, if the exec takes any, and collects the output to the end.

        `on_event` is called with each event before the next one is taken.
        """
        failures: list[Exception] = []
        if stdin or self._takes_input:
            threading.Thread(target=self._write_all, args=[stdin, failures], daemon=True).start()
        collector = Collector(max_bytes=max_bytes)
        for event in self:
            collector.take(event)
            if on_event is not None:
                on_event(event)
        self._ended()
        if failures:
            raise failures[0]
        return collector.result(self.sandbox_id, self.exec_id, self._position)

    def close(self) -> None:
        """Stops watching and writing; the exec runs on."""
        self.release_stdin()
        super().close()

    def _stdin(self) -> StdinWriter:
        self.start()
        with self._writing:
            if self._writer is None:
                self._writer = StdinWriter(
                    self._stub, self.sandbox_id, self.exec_id, reconnect_seconds=self._reconnect_seconds
                )
            return self._writer

    def _write_all(self, data: bytes, failures: list[Exception]) -> None:
        try:
            self.write_stdin(data)
            self.close_stdin()
        except QilaError as error:
            # A program may end without reading all.
            if error.reason != EXEC_ENDED:
                failures.append(error)
        except ValueError as error:
            # The input was closed: by the caller before, or by `close` while this waited for room.
            failures.append(error)

    def _ended(self) -> pb.ExecEnded:
        if self.ended is None:
            raise ValueError("its end was not watched for: attach to it")
        return self.ended
