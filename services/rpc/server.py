"""One way to build a server: health, reflection, errors, request ids and logs are always there."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import signal
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import OVERALL_HEALTH
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from services.rpc.config import StartError
from services.rpc.interceptor import CallInterceptor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LOG: Final = structlog.get_logger("services.rpc")
MAX_MESSAGE_BYTES: Final = 4 << 20
DEFAULT_GRACE_SECONDS: Final = 10.0
UNIX_PREFIX: Final = "unix:"
_MAX_SOCKET_PATH_BYTES: Final = 99
# New objects before the collector looks; Python's own 700 are less than one call makes.
_COLLECT_AFTER: Final = 10_000
_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
_OPTIONS: Final = (
    # BDP probing lets a stalled stream buffer some 16 MiB at the receiver.
    ("grpc.http2.bdp_probe", 0),
    # A second server on the same port must fail, not share it.
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 3),
    ("grpc.max_metadata_size", 16 << 10),
)


@dataclass(kw_only=True, eq=False)
class AddressInUse(StartError):  # what it is called everywhere
    """Another process serves on the address."""

    address: str

    def __str__(self) -> str:
        return f"{self.address} is in use by another process; stop it, or set another address"


@dataclass(kw_only=True, eq=False)
class BadAddress(StartError):  # beside AddressInUse
    """The address cannot be served on."""

    address: str
    rule: str

    def __str__(self) -> str:
        return f"{self.address}: {self.rule}"


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """What a server is built from.

    Attributes:
        address: `unix:/absolute/path`, or `HOST:PORT` with a loopback host; port 0 takes a free one.
        service_names: full names of the protobuf services, for health and reflection.
        max_message_bytes: of one message, either way.
    """

    address: str
    service_names: tuple[str, ...]
    max_message_bytes: int = MAX_MESSAGE_BYTES


@dataclass(frozen=True, kw_only=True)
class RpcServer:
    """A server that is bound and not started yet. `address` has the true port."""

    server: grpc.aio.Server
    health: health_aio.HealthServicer
    service_names: tuple[str, ...]
    address: str

    async def start(self) -> None:
        """Begins to answer, and says so to health probes."""
        await self.server.start()
        await self._set_health(_SERVING)

    async def stop(self, grace: float) -> None:
        """Tells health probes, takes no new calls, and answers those in flight for `grace` seconds."""
        await self._set_health(_NOT_SERVING)
        await self.server.stop(grace)
        if self.address.startswith(UNIX_PREFIX):
            await asyncio.to_thread(Path(self.address.removeprefix(UNIX_PREFIX)).unlink, missing_ok=True)

    async def _set_health(self, status: int) -> None:
        for name in (OVERALL_HEALTH, *self.service_names):
            await self.health.set(name, status)


async def build_server(config: ServerConfig, registrations: Sequence[Callable[[grpc.aio.Server], None]]) -> RpcServer:
    """Builds a server and binds its address.

    Args:
        config: where and what it serves.
        registrations: each adds one servicer, as `lambda server: add_XServicer_to_server(servicer, server)`.

    Raises:
        AddressInUse: another process serves there.
        BadAddress: it is not loopback, too long, or cannot be bound.
    """
    size = config.max_message_bytes
    options = (*_OPTIONS, ("grpc.max_receive_message_length", size), ("grpc.max_send_message_length", size))
    server = grpc.aio.server(interceptors=(CallInterceptor(),), options=options)
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    for register in registrations:
        register(server)
    names = (*config.service_names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
    reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
    address = _bind(server, config.address)
    return RpcServer(server=server, health=health, service_names=config.service_names, address=address)


class Companion(Protocol):
    """Another server in the same process."""

    async def start(self) -> None:
        """Begins to answer."""

    async def stop(self, grace: float) -> None:
        """Takes no new calls, and answers those in flight for `grace` seconds."""


async def serve(server: RpcServer, grace: float = DEFAULT_GRACE_SECONDS, companions: Sequence[Companion] = ()) -> None:
    """Serves until SIGTERM or SIGINT, then answers the calls in flight for up to `grace` seconds and returns.

    Args:
        server: says that it is healthy when all of them serve.
        grace: seconds.
        companions: start before it and stop with it.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        for companion in companions:
            await companion.start()
        await server.start()
        _settle_heap()
        _LOG.info("serving", address=server.address)
        await stop.wait()
        _LOG.info("stopping", grace_seconds=grace)
        await asyncio.gather(server.stop(grace), *(companion.stop(grace) for companion in companions))
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _settle_heap() -> None:
    """What starting made stays for good: the collector need not look through it during calls."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


def _bind(server: grpc.aio.Server, address: str) -> str:
    if address.startswith(UNIX_PREFIX):
        return _bind_unix(server, address)
    loopback_address(address)
    return f"{address.rpartition(':')[0]}:{_add_port(server, address)}"


def loopback_address(address: str) -> tuple[str, int]:
    """The host and the port of a loopback address, on which nobody listens yet.

    Raises:
        AddressInUse: another process serves there.
        BadAddress: it is not loopback.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not _is_loopback(host):
        rule = "must be unix:/PATH or a loopback host and a port, as 127.0.0.1:7450: callers are not authenticated"
        raise BadAddress(address=address, rule=rule)
    host = host.strip("[]")
    if port != "0" and _answers(host, int(port)):
        raise AddressInUse(address=address)
    return host, int(port)


def _bind_unix(server: grpc.aio.Server, address: str) -> str:
    path = Path(address.removeprefix(UNIX_PREFIX))
    if not path.is_absolute() or len(os.fsencode(path)) > _MAX_SOCKET_PATH_BYTES:
        raise BadAddress(address=address, rule=f"must be an absolute path of at most {_MAX_SOCKET_PATH_BYTES} bytes")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear_stale(path, address)
    except OSError as error:
        raise BadAddress(address=address, rule=f"cannot be made: {error.strerror}") from error
    # The socket must never be open to others, not for a moment.
    previous = os.umask(0o177)
    try:
        _add_port(server, address)
    finally:
        os.umask(previous)
    return address


def _add_port(server: grpc.aio.Server, address: str) -> int:
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise AddressInUse(address=address) from error


def _clear_stale(path: Path, address: str) -> None:
    """Removes a socket that nobody listens on."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BadAddress(address=address, rule="something that is not a socket is there; remove it")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise AddressInUse(address=address)


def _answers(host: str, port: int) -> bool:
    """Whether somebody listens there: an ephemeral wildcard listener would not make the bind fail."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
