"""What the client's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .fakes_server import FakesServer, served_fakes
from .scripted_gateway import ScriptedGateway, served


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedGateway]:
    made = ScriptedGateway()  # type: ignore[abstract]  # calls that no test makes answer UNIMPLEMENTED
    with served(made) as address:
        monkeypatch.setenv("QILA_GATEWAY_ADDRESS", address)
        yield made


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakesServer]:
    with served_fakes() as server:
        monkeypatch.setenv("QILA_GATEWAY_ADDRESS", server.address)
        yield server
