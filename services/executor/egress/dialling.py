"""The way out of a tunnel: one look-up of a name, and connections to the very addresses that it gave."""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from services.executor.egress.addresses import Address, ForbiddenAddress
from services.executor.egress.connect_request import PORT

# The mirror looks its names up in other threads: a slow name of a tunnel's must not hold it up.
_LOOK_UPS_AT_ONCE = 8
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class SystemDialler:
    """Asks the machine's own resolver, and dials through its own network."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=_LOOK_UPS_AT_ONCE, thread_name_prefix="look-up")

    async def resolve(self, host: str) -> Sequence[str]:
        """Every address of a name, in the order to be tried.

        Raises:
            OSError: the name has none, or nobody can be asked.
        """
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, host)
        return [str(sockaddr[0]) for *_, sockaddr in found]

    async def dial(self, address: Address) -> socket.socket:
        """A non-blocking connection to port 443 of an address.

        Raises:
            OSError: nobody answers there.
            ForbiddenAddress: it is one of this machine's own.
        """
        text = str(address)
        if is_own(address):
            raise ForbiddenAddress(address=text, meaning="this machine's own")
        connection = socket.socket(_FAMILIES[address.version], socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(connection, (text, PORT))
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Begin no further look-up."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def is_own(address: Address) -> bool:
    """Whether an address is this machine's: only then would packets to it come from it. Sends nothing.

    Raises:
        OSError: there is no way to it at all.
    """
    with socket.socket(_FAMILIES[address.version], socket.SOCK_DGRAM) as probe:
        probe.connect((str(address), PORT))
        return bool(probe.getsockname()[0] == str(address))


def _look_up(host: str) -> Sequence[tuple[object, object, object, str, tuple[object, ...]]]:
    return socket.getaddrinfo(host, PORT, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
