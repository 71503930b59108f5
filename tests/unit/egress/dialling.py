"""A way out that leads nowhere."""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.executor.egress.addresses import Address, ForbiddenAddress

ADDRESS = "203.0.113.80"


@dataclass
class FakeDialler:
    """Answers every look-up with `addresses` and every dial with one end of a pair, whose other is in `remotes`."""

    addresses: list[str] = field(default_factory=lambda: [ADDRESS])
    dead: set[str] = field(default_factory=set)
    own: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    dialled: list[str] = field(default_factory=list)
    remotes: list[socket.socket] = field(default_factory=list)
    is_silent: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def resolve(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if self.is_silent:
            await asyncio.Event().wait()
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return self.addresses

    async def dial(self, address: Address) -> socket.socket:
        self.dialled.append(str(address))
        if str(address) in self.own:
            raise ForbiddenAddress(address=str(address), meaning="this machine's own")
        if str(address) in self.dead:
            raise ConnectionRefusedError
        ours, remote = socket.socketpair()
        ours.setblocking(False)
        remote.setblocking(False)
        self.remotes.append(remote)
        self.reached.set()
        return ours

    async def remote(self) -> socket.socket:
        """The other end, once something was dialled."""
        await asyncio.wait_for(self.reached.wait(), 10)
        return self.remotes[-1]

    def close(self) -> None:
        for remote in self.remotes:
            remote.close()
