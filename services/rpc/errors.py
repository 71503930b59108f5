"""One vocabulary of errors, inside a service and on the wire.

A service raises `QilaError`; the server's interceptor turns it into a `google.rpc.Status` with an `ErrorInfo` of
domain "qila"; a client of the service turns that back into the same `QilaError`. This module imports no grpc, so that
core modules may raise.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import grpc.aio

DOMAIN: Final = "qila"
STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
_NO_METADATA: Final[Mapping[str, str]] = MappingProxyType({})


class ErrorCode(Enum):
    """The canonical codes; the value is the number on the wire."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class QilaError(Exception):
    """A failure that a caller may see.

    Attributes:
        code: the canonical code.
        reason: UPPER_SNAKE_CASE, what programs decide by.
        message: one sentence for a person, which says what to do.
        metadata: the facts of the failure.
    """

    def __init__(self, code: ErrorCode, reason: str, message: str, metadata: Mapping[str, str] = _NO_METADATA) -> None:
        super().__init__(code, reason, message)
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata: Mapping[str, str] = MappingProxyType(dict(metadata))

    def __str__(self) -> str:
        return f"{self.code.name} ({self.reason}): {self.message}"


def invalid_argument(reason: str, message: str, **metadata: str) -> QilaError:
    """A field breaks its documented rule."""
    return QilaError(ErrorCode.INVALID_ARGUMENT, reason, message, metadata)


def not_found(reason: str, message: str, **metadata: str) -> QilaError:
    """What was named is not there."""
    return QilaError(ErrorCode.NOT_FOUND, reason, message, metadata)


def already_exists(reason: str, message: str, **metadata: str) -> QilaError:
    """An id stands for something else."""
    return QilaError(ErrorCode.ALREADY_EXISTS, reason, message, metadata)


def failed_precondition(reason: str, message: str, **metadata: str) -> QilaError:
    """The state of things forbids the call; a repeat alone does not help."""
    return QilaError(ErrorCode.FAILED_PRECONDITION, reason, message, metadata)


def resource_exhausted(reason: str, message: str, **metadata: str) -> QilaError:
    """A limit is reached."""
    return QilaError(ErrorCode.RESOURCE_EXHAUSTED, reason, message, metadata)


def out_of_range(reason: str, message: str, **metadata: str) -> QilaError:
    """A position lies beyond the end."""
    return QilaError(ErrorCode.OUT_OF_RANGE, reason, message, metadata)


def deadline_exceeded(reason: str, message: str, **metadata: str) -> QilaError:
    """The work did not finish within its time."""
    return QilaError(ErrorCode.DEADLINE_EXCEEDED, reason, message, metadata)


def unavailable(reason: str, message: str, **metadata: str) -> QilaError:
    """Something that the service needs does not answer; repeat later."""
    return QilaError(ErrorCode.UNAVAILABLE, reason, message, metadata)


def internal(reason: str, message: str, **metadata: str) -> QilaError:
    """A fault of Qila's own."""
    return QilaError(ErrorCode.INTERNAL, reason, message, metadata)


def to_status(error: QilaError) -> status_pb2.Status:
    """The error as it goes over the wire."""
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=dict(error.metadata))
    detail = any_pb2.Any()
    detail.Pack(info)
    return status_pb2.Status(code=error.code.value, message=error.message, details=[detail])


# What grpc.aio says of a stream that breaks while it writes, whatever broke it.
_BROKEN_WHILE_WRITING: Final = "Internal error from Core"


def from_rpc_error(error: grpc.aio.AioRpcError, peer: str = "service") -> QilaError:
    """What a service behind this one said, or why it could not say anything.

    Args:
        error: as the channel raised it.
        peer: the name of the service that was called, for the wording.
    """
    for status in _statuses(error):
        for detail in status.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
                return QilaError(_code_of(status.code), info.reason, status.message, dict(info.metadata))
    return _without_details(error, peer)


def _statuses(error: grpc.aio.AioRpcError) -> Iterator[status_pb2.Status]:
    for key, value in error.trailing_metadata() or ():
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            try:
                yield status_pb2.Status.FromString(value)
            except DecodeError:
                # A peer that writes nonsense is reported by its bare code.
                return


def _without_details(error: grpc.aio.AioRpcError, peer: str) -> QilaError:
    code = _code_of(error.code().value[0])
    if code is ErrorCode.UNAVAILABLE or error.details() == _BROKEN_WHILE_WRITING:
        message = f"the {peer} does not answer; see that it runs, then repeat the call"
        return unavailable(f"{peer.upper()}_UNAVAILABLE", message, peer=peer)
    if code is ErrorCode.DEADLINE_EXCEEDED:
        message = f"the {peer} did not answer in time; repeat the call"
        return deadline_exceeded(f"{peer.upper()}_TIMED_OUT", message, peer=peer)
    if code is ErrorCode.CANCELLED:
        return QilaError(code, "CANCELLED", "the call was cancelled", {"peer": peer})
    return QilaError(code, f"{peer.upper()}_{code.name}", error.details() or f"the {peer} failed", {"peer": peer})


def _code_of(number: int) -> ErrorCode:
    try:
        return ErrorCode(number)
    except ValueError:
        return ErrorCode.UNKNOWN


def from_status(status: status_pb2.Status) -> QilaError:
    """The error that `to_status` made this of; one without Qila's detail keeps its code and message."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
            return QilaError(_code_of(status.code), info.reason, status.message, dict(info.metadata))
    code = _code_of(status.code)
    return QilaError(code, code.name, status.message)
