"""The HTTP door over the fakes, on a loopback port of its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from services.gateway.http.config import HttpConfig
from services.gateway.http.door import HttpDoor
from services.gateway.servicer import GatewayServicer

from .gateway_world import PATIENCE, World


def servicer_of(world: World) -> GatewayServicer:
    return GatewayServicer(
        conductor=world.conductor,
        executor_port=world.executor,
        resolver_port=world.resolver,
        store=world.store,
        patience=PATIENCE,
    )


@asynccontextmanager
async def open_door(world: World, *, origins: tuple[str, ...] = ()) -> AsyncIterator[HttpDoor]:
    door = HttpDoor(servicer_of(world), HttpConfig(address="127.0.0.1:0", origins=origins))
    await door.start()
    try:
        yield door
    finally:
        await door.stop(0)


@asynccontextmanager
async def client_of(world: World, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        open_door(world, **options) as door,
        httpx.AsyncClient(base_url=f"http://{door.address}", timeout=20, trust_env=False) as client,
    ):
        yield client


def events_in(text: str) -> list[tuple[str, str, Any]]:
    """The id, the kind and the data of each event in a stream; comments are left out."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields:
            found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return found


def output_in(events: list[tuple[str, str, Any]], stream: str = "stdout") -> str:
    outputs = [data["output"] for _, kind, data in events if kind == "output"]
    return "".join(item["data"] for item in outputs if item["phase"] == "run" and item["stream"] == stream)
