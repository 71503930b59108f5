"""The egress records of one sandbox, across lost connections."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from qila.client.errors import UnavailableError, translated
from qila.client.position import Patience
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceAsyncStub, GatewayServiceStub


class _Place:
    """Behind which record a reader is."""

    def __init__(self, request: pb.ListEgressRequest, seconds: float) -> None:
        self.request = pb.ListEgressRequest()
        self.request.CopyFrom(request)
        self._patience = Patience(seconds)
        self._begun = False

    def passed(self, record: pb.EgressRecord) -> None:
        self.request.after_sequence = record.sequence
        self._begun = True
        self._patience.progressed()

    def pause_after(self, error: UnavailableError) -> float:
        """Seconds until the next try; raises the error if there is none."""
        pause = self._patience.next_pause()
        if pause is None or not self._begun or not self.request.follow:
            raise error
        return pause


def egress_records(
    stub: GatewayServiceStub,
    request: pb.ListEgressRequest,
    *,
    reconnect_seconds: float,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[pb.EgressRecord]:
    """The records that a request asks for, each once. QilaError."""
    place = _Place(request, reconnect_seconds)
    while True:
        call = stub.ListEgress(place.request)
        try:
            with translated():
                for response in call:
                    for record in response.records:
                        yield record
                        place.passed(record)
        except UnavailableError as error:
            seconds = place.pause_after(error)
        else:
            return
        finally:
            # Who stops reading must not leave the stream behind.
            call.cancel()
        pause(seconds)


async def async_egress_records(
    stub: GatewayServiceAsyncStub, request: pb.ListEgressRequest, *, reconnect_seconds: float
) -> AsyncIterator[pb.EgressRecord]:
    """The same, of the asynchronous client."""
    place = _Place(request, reconnect_seconds)
    while True:
        call: Any = stub.ListEgress(place.request)
        try:
            with translated():
                async for response in call:
                    for record in response.records:
                        yield record
                        place.passed(record)
        except UnavailableError as error:
            seconds = place.pause_after(error)
        else:
            return
        finally:
            call.cancel()
        await asyncio.sleep(seconds)
