"""What a client does to a running exec: writes its input, sizes its terminal, sends it signals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import checks
from services.gateway.conductor import Conductor
from services.gateway.live import LiveExec
from services.gateway.ports import ExecutorPort
from services.gateway.stdin import StdinRelay, as_of_exec, exec_ended
from services.rpc.errors import QilaError, failed_precondition, invalid_argument, unavailable


class Interaction:
    """The calls that reach into an exec. Each raises `QilaError` as the proto says of it."""

    def __init__(self, conductor: Conductor, executor_port: ExecutorPort, patience: float) -> None:
        self._conductor = conductor
        self._executor = executor_port
        self._patience = patience

    async def write_stdin(self, requests: AsyncIterator[pb.WriteStdinRequest]) -> AsyncGenerator[int, None]:
        """How many bytes of the input are accepted, as it grows."""
        first = await anext(requests, pb.WriteStdinRequest())
        if not first.HasField("header"):
            raise invalid_argument("HEADER_MISSING", "the first message must be the header")
        live = await self._conductor.find(first.header.sandbox_id, first.header.exec_id)
        if not live.request.stdin and not live.request.HasField("terminal"):
            message = f"{live.exec_id} was started without an input; start it with `stdin` or a `terminal`"
            raise failed_precondition("STDIN_NOT_OPEN", message, exec_id=live.exec_id)
        relay = StdinRelay(self._executor, live, requests, patience=self._patience)
        async with aclosing(relay.accepted()) as answers:
            async for accepted in answers:
                yield accepted

    async def resize(self, sandbox_id: str, exec_id: str, terminal: pb.Terminal) -> None:
        """Sets the size of the exec's terminal."""
        checks.check_terminal(terminal)
        live = await self._conductor.find(sandbox_id, exec_id)
        if not live.request.HasField("terminal"):
            message = f"{exec_id} has no terminal; start it with a `terminal`"
            raise failed_precondition("NO_TERMINAL", message, exec_id=exec_id)
        await self._started(live)
        size = executor.Terminal(rows=terminal.rows, columns=terminal.columns)
        try:
            await self._executor.resize_terminal(sandbox_id, live.process_id, size)
        except QilaError as error:
            raise as_of_exec(error, live) from error

    async def signal(self, sandbox_id: str, exec_id: str, number: int) -> None:
        """Sends a signal to the exec's process group."""
        checks.check_signal(number)
        live = await self._conductor.find(sandbox_id, exec_id)
        await self._started(live)
        try:
            await self._executor.signal_process(sandbox_id, live.process_id, number)
        except QilaError as error:
            raise as_of_exec(error, live) from error

    async def _started(self, live: LiveExec) -> None:
        """Returns when its process is there, which in the RUN phase is a matter of moments."""
        try:
            async with asyncio.timeout(self._patience):
                while live.run not in live.started or live.journal.ended:
                    if live.journal.ended:
                        raise exec_ended(live)
                    if live.journal.record.phase != pb.PHASE_RUN:
                        message = f"the run of {live.exec_id} has not begun; repeat the call when it has"
                        raise failed_precondition("EXEC_NOT_RUNNING", message, exec_id=live.exec_id)
                    await live.bell.wait()
        except TimeoutError:
            message = "the executor does not answer; see that it runs, then repeat the call"
            raise unavailable("EXECUTOR_UNAVAILABLE", message, exec_id=live.exec_id) from None
