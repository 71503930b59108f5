"""The real doors before a sandbox, for tests that type commands in it, towards the real registries or a test's own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sandboxd_harness import Sandbox  # type: ignore[import-not-found]  # pytest puts this directory on the path

from services.executor.egress import policy
from services.executor.egress.config import DoorsConfig
from services.executor.egress.door_process import Doors
from services.executor.egress.records import EgressRecord
from services.executor.egress.registries import DEFAULT_FILE

NAME = "sb_" + "d" * 26
CACHE_BYTES = 4 << 30

_Result = TypeVar("_Result")


class LoopThread:
    """An event loop beside a test that waits for a sandbox. Use as a context."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def do(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Wait for something that runs in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


class Workplace:
    """A sandbox whose doors lead to `registries`, with an install under way as far as they know. Use as a context.

    `rules` is the text of a package policy. What the mirror fetches is kept for as long as the context lasts.
    """

    def __init__(self, sandbox: Sandbox, *, rules: str = "", registries: Path = DEFAULT_FILE) -> None:
        self.sandbox = sandbox
        self._rules = rules
        self._registries = registries
        self._records: list[EgressRecord] = []
        self._thread = LoopThread()
        self._directory = Path(tempfile.mkdtemp(prefix="qd", dir="/tmp"))

    def __enter__(self) -> Self:
        self._thread.__enter__()
        try:
            self._thread.do(self._open())
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.do(self._doors.stop())
        self._close()

    async def _open(self) -> None:
        cache = self._directory / "cache"
        cache.mkdir(mode=0o700)
        os.chown(cache, 65534, 65534)
        package_policy = self._directory / "packages.toml"
        package_policy.write_text(self._rules)
        config = DoorsConfig(
            uid=65534,
            gid=65534,
            registries=self._registries,
            cache_directory=cache,
            cache_bytes=CACHE_BYTES,
            package_policy=package_policy if self._rules else None,
        )
        self._doors = Doors(config, on_egress=self._records.append)
        await self._doors.start()
        await self._doors.open(NAME, self.sandbox.doors, policy.DEFAULT)
        await self._doors.set_install_phase(NAME, True)

    def _close(self) -> None:
        self._thread.__exit__(None, None, None)
        shutil.rmtree(self._directory)

    def run(self, script: str, *, user: str = "program", code: int = 0) -> str:
        """What a bash script prints on both streams, in a new directory; it fails the test if it exits otherwise."""
        self.sandbox.channel.connection.settimeout(200)
        place = "cd $(mktemp -d -p $HOME)"
        ended, out, err = self.sandbox.run("bash", "-euc", f"{place}\n{script}", user=user)
        text = f"{out.decode()}{err.decode()}"
        assert ended["end"] == {"kind": "exited", "code": code}, text
        return text

    @property
    def records(self) -> list[EgressRecord]:
        """What the doors have decided, until now or since `forget`."""
        # The answer to a phase comes behind every decision before it.
        self._thread.do(self._doors.set_install_phase(NAME, True))
        return list(self._records)

    @property
    def rules(self) -> set[str]:
        """The grammar's rows that were answered well."""
        return {record.rule for record in self.records if record.status == 200}

    @property
    def refused(self) -> list[tuple[str, str, int, str]]:
        """Method, path, status and rule of what was not answered well."""
        return [(r.method, r.path, r.status, r.rule) for r in self.records if r.status != 200]

    def forget(self) -> None:
        """Drop the records until now."""
        assert self.records is not None
        self._records.clear()

    def restart(self) -> None:
        """Kill the doors process, and wait for the next one."""
        self._thread.do(self._restart())

    async def _restart(self) -> None:
        killed = self._doors.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        while self._doors.pid in {None, killed}:
            await self._doors.set_install_phase(NAME, True)
