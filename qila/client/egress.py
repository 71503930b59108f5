"""The egress records of one sandbox, across lost connections."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from qila.client.errors import UnavailableError, translated
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceStub

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0


def egress_records(
    stub: GatewayServiceStub,
    request: pb.ListEgressRequest,
    *,
    reconnect_seconds: float,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[pb.EgressRecord]:
    """The records that a request asks for, each once. QilaError."""
    position = pb.ListEgressRequest()
    position.CopyFrom(request)
    deadline, seconds = time.monotonic() + reconnect_seconds, _FIRST_PAUSE_S
    begun = False
    while True:
        call = stub.ListEgress(position)
        try:
            with translated():
                for response in call:
                    for record in response.records:
                        yield record
                        position.after_sequence = record.sequence
                        begun = True
                    deadline, seconds = time.monotonic() + reconnect_seconds, _FIRST_PAUSE_S
        except UnavailableError:
            if not begun or not request.follow or time.monotonic() >= deadline:
                raise
        else:
            return
        finally:
            # Who stops reading must not leave the stream behind.
            call.cancel()
        pause(seconds)
        seconds = min(seconds * 2, _LONGEST_PAUSE_S)
