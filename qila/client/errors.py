"""What a call to the gateway can fail with."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(kw_only=True, eq=False)
class QilaError(Exception):
    """A call that was refused: the canonical status code, the gateway's reason, its words and its data."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message


class NotFoundError(QilaError):
    """The sandbox, exec, file or lock is not there."""


class InvalidArgumentError(QilaError):
    """A field breaks its documented rule, or the program cannot be planned."""


class AlreadyExistsError(QilaError):
    """The exec id stands for another request."""


class ResourceExhaustedError(QilaError):
    """A limit is reached; the message names it."""


class UnavailableError(QilaError):
    """The gateway, or a service behind it, does not answer."""


_TYPES: Final[Mapping[grpc.StatusCode, type[QilaError]]] = {
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
}


def from_rpc_error(error: grpc.RpcError) -> QilaError:
    """The typed error of a failed call; without ErrorInfo the reason is the status code's name."""
    if not isinstance(error, grpc.Call):
        raise error
    code = error.code() or grpc.StatusCode.UNKNOWN
    message = error.details() or code.name
    reason, metadata = code.name, {}
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = ErrorInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
    return _TYPES.get(code, QilaError)(code=code, reason=reason, message=message, metadata=metadata)


@contextmanager
def translated() -> Iterator[None]:
    """Turns gRPC's error into a QilaError."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
