"""Doors without a process, for tests of what stands behind them."""

import socket

from services.executor.egress.door_process import DoorsUnavailable, OnEgress, UnknownSandbox
from services.executor.egress.policy import EgressPolicy
from services.executor.egress.records import EgressRecord


class FakeDoors:
    """Remembers what it was told; `report` plays a decision; nothing is accepted from the listeners."""

    def __init__(self, *, on_egress: OnEgress) -> None:
        self._on_egress = on_egress
        self.is_running = False
        self.listeners: dict[str, socket.socket] = {}
        self.installing: set[str] = set()
        self.policies: dict[str, EgressPolicy] = {}

    async def start(self) -> None:
        """Count as running."""
        self.is_running = True

    async def open(self, sandbox_id: str, listener: socket.socket, policy: EgressPolicy) -> None:
        """Keep a copy of the listener; raises DoorsUnavailable unless running."""
        self._check_running("open")
        earlier = self.listeners.pop(sandbox_id, None)
        if earlier is not None:
            earlier.close()
        self.listeners[sandbox_id] = listener.dup()
        self.policies[sandbox_id] = policy

    async def close(self, sandbox_id: str) -> None:
        """Forget a sandbox; raises DoorsUnavailable unless running."""
        self._check_running("close")
        listener = self.listeners.pop(sandbox_id, None)
        if listener is not None:
            listener.close()
        self.installing.discard(sandbox_id)

    async def set_install_phase(self, sandbox_id: str, is_open: bool) -> None:  # noqa: FBT001  # see DoorControl
        """Remember the phase; raises UnknownSandbox, DoorsUnavailable unless running."""
        if sandbox_id not in self.listeners:
            raise UnknownSandbox(sandbox_id=sandbox_id)
        self._check_running("phase")
        (self.installing.add if is_open else self.installing.discard)(sandbox_id)

    async def set_policy(self, sandbox_id: str, policy: EgressPolicy) -> None:
        """Remember the policy; raises UnknownSandbox, DoorsUnavailable unless running."""
        if sandbox_id not in self.listeners:
            raise UnknownSandbox(sandbox_id=sandbox_id)
        self._check_running("policy")
        self.policies[sandbox_id] = policy

    async def stop(self) -> None:
        """Forget everything."""
        self.is_running = False
        for listener in self.listeners.values():
            listener.close()
        self.listeners.clear()
        self.installing.clear()

    def report(self, record: EgressRecord) -> None:
        """Hand over a record as the process would: only of an open sandbox."""
        if record.sandbox in self.listeners:
            self._on_egress(record)

    def _check_running(self, doing: str) -> None:
        if not self.is_running:
            raise DoorsUnavailable(doing=doing)
