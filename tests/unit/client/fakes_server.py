"""The real gateway over the fakes, on a socket, in a thread of its own."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from structlog.testing import capture_logs

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2_grpc
from services.gateway.__main__ import MAX_MESSAGE_BYTES, SERVICE_NAME
from services.gateway.conductor import Conductor
from services.gateway.config import ConductorConfig
from services.gateway.executor_fake import FakeExecutor, FakeProcess
from services.gateway.preview.links import PreviewLinks
from services.gateway.resolver_fake import LOCK, FakeResolver
from services.gateway.servicer import GatewayServicer
from services.gateway.store.memory import MemoryStore
from services.rpc.server import ServerConfig, build_server


async def _program(process: FakeProcess) -> int:
    """What the fake runs: prints what a program's `print` calls say, and exits as its `exit` call does."""
    source = process.sandbox.files[process.spec.argv[1]].decode()
    for text in re.findall(r"print\('([^']*)'\)", source):
        process.write(text.encode() + b"\n")
    for text in re.findall(r"warn\('([^']*)'\)", source):
        process.write(text.encode() + b"\n", executor.STREAM_STDERR)
    code = re.search(r"exit\((\d+)\)", source)
    if "wait()" in source:
        await asyncio.Event().wait()
    return int(code[1]) if code else 0


async def _solve(process: FakeProcess) -> int:
    directory = process.spec.working_directory.removeprefix("/sandbox/")
    process.sandbox.files[f"{directory}/{LOCK}"] = b"locked"
    return 0


async def _install(process: FakeProcess) -> int:
    process.write(b"+ yaml==6.0\n")
    return 0


async def _inventory(process: FakeProcess) -> int:
    process.write(b"inventory")
    return 0


async def _quiet(_process: FakeProcess) -> int:
    return 0


class FakesServer:
    """Attributes: its address, and the executor and the resolver that are beneath."""

    def __init__(self) -> None:
        self.address = ""
        self.executor = FakeExecutor()
        self.resolver = FakeResolver()
        self.executor.programs.update(
            program=_program, solve=_solve, install=_install, inventory=_inventory, compile=_quiet
        )

    async def serve(self, ready: threading.Event, stopped: asyncio.Event) -> None:
        resolver, store = self.resolver, MemoryStore()
        conductor = Conductor(
            executor_port=self.executor, resolver_port=resolver, store=store, config=ConductorConfig()
        )
        servicer = GatewayServicer(
            conductor=conductor,
            executor_port=self.executor,
            resolver_port=resolver,
            store=store,
            patience=1,
            preview_links=PreviewLinks(b"k" * 32, 8081),
        )
        server = await build_server(
            ServerConfig(address="127.0.0.1:0", service_names=(SERVICE_NAME,), max_message_bytes=MAX_MESSAGE_BYTES),
            [lambda server: gateway_pb2_grpc.add_GatewayServiceServicer_to_server(servicer, server)],
        )
        await server.start()
        self.address = server.address
        ready.set()
        await stopped.wait()
        await server.stop(0)
        await conductor.close()


@contextmanager
def served_fakes() -> Iterator[FakesServer]:
    """A server while it runs."""
    made, ready = FakesServer(), threading.Event()
    loop = asyncio.new_event_loop()
    stopped = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=[made.serve(ready, stopped)])
    thread.start()
    try:
        assert ready.wait(20)
        # Its log would mix with what examples print.
        with capture_logs():
            yield made
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
        loop.close()
