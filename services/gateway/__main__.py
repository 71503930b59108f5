"""Runs the gateway: `python -m services.gateway`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from qila.gateway.v1 import gateway_pb2_grpc
from services.gateway.conductor import Conductor
from services.gateway.config import GatewayConfig, read_config
from services.gateway.executor_client import ExecutorClient
from services.gateway.http.config import HttpConfig
from services.gateway.http.door import HttpDoor
from services.gateway.preview.links import read_key
from services.gateway.preview.server import PreviewServer
from services.gateway.resolver_client import ResolverClient
from services.gateway.servicer import GatewayServicer
from services.gateway.store.sql import SqlStore, open_store, upgrade
from services.rpc import log
from services.rpc.channel import build_channel
from services.rpc.config import StartError, run_service
from services.rpc.server import ServerConfig, build_server, serve

SERVICE_NAME: Final = "qila.gateway.v1.GatewayService"
# Two lockfiles of the largest size that are compared, and what goes with them.
MAX_MESSAGE_BYTES: Final = 40 << 20


async def main(config: GatewayConfig) -> None:
    """Serves until it is told to stop.

    Raises:
        StartError: the address or the database cannot be used.
    """
    log.configure("gateway", level=config.log_level)
    async with AsyncExitStack() as stack:
        executor_channel = await stack.enter_async_context(build_channel(config.executor_address))
        resolver_channel = await stack.enter_async_context(
            build_channel(config.resolver_address, max_message_bytes=MAX_MESSAGE_BYTES)
        )
        store = await _open(config)
        stack.push_async_callback(store.close)
        executor = ExecutorClient(executor_channel)
        resolver = ResolverClient(resolver_channel)
        conductor = Conductor(
            executor_port=executor,
            resolver_port=resolver,
            store=store,
            config=config.conductor,
        )
        preview = await _previews(config, executor)
        if preview is not None:
            stack.push_async_callback(preview.close)
        servicer = GatewayServicer(
            conductor=conductor,
            executor_port=executor,
            resolver_port=resolver,
            store=store,
            patience=config.conductor.patience,
            preview_links=None if preview is None else preview.links,
        )
        server = await build_server(
            ServerConfig(address=config.address, service_names=(SERVICE_NAME,), max_message_bytes=MAX_MESSAGE_BYTES),
            [lambda server: gateway_pb2_grpc.add_GatewayServiceServicer_to_server(servicer, server)],
        )
        doors = [] if config.http is None else [_http_door(servicer, config.http)]
        stack.push_async_callback(conductor.close)
        await conductor.adopt()
        recovering = asyncio.create_task(conductor.recover())
        try:
            await serve(server, config.grace, doors)
        finally:
            recovering.cancel()
            await asyncio.gather(recovering, return_exceptions=True)


def _http_door(servicer: GatewayServicer, config: HttpConfig) -> HttpDoor:
    try:
        return HttpDoor(servicer, config)
    except StartError as error:
        raise StartError(f"QILA_HTTP_ADDRESS: {error}; or off for none") from error


async def _previews(config: GatewayConfig, executor: ExecutorClient) -> PreviewServer | None:
    if config.preview_address is None:
        return None
    try:
        key = await asyncio.to_thread(read_key, config.preview_key)
    except OSError as error:
        raise StartError(f"the key of previews cannot be used: {error}") from error
    server = PreviewServer(executor, key)
    await server.start(*config.preview_address)
    return server


async def _open(config: GatewayConfig) -> SqlStore:
    try:
        await asyncio.to_thread(upgrade, config.database)
    except (SQLAlchemyError, OSError) as error:
        words = str(error).splitlines()[0]
        raise StartError(f"the database {config.database} cannot be used: {words}; see QILA_STATE_DIR") from error
    return open_store(config.database)


if __name__ == "__main__":
    sys.exit(run_service("gateway", read_config, main))
