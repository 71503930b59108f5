"""What a call to the gateway can fail with.

All of it is a QilaError. What a program did is no error: it stands in `ExecEnded`.

>>> try:
...     client.sandbox("sb_" + "z" * 26)
... except NotFoundError as error:
...     print(error.reason)
SANDBOX_NOT_FOUND
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


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


class OutOfRangeError(InvalidArgumentError):
    """A position beyond the end."""


class AlreadyExistsError(QilaError):
    """The exec id stands for another request."""


class FailedPreconditionError(QilaError):
    """What is asked does not fit what is there: an exec without an open input, one that has ended, a directory."""


class PermissionDeniedError(QilaError):
    """The program's user may not do that."""


class ResourceExhaustedError(QilaError):
    """A limit is reached; the message names it."""


class AbortedError(QilaError):
    """Another caller took it over, as a second writer of one input does."""


class UnavailableError(QilaError):
    """The gateway, or a service behind it, does not answer."""


class DeadlineExceededError(UnavailableError):
    """It did not answer in time; whether the call took effect is not known."""


# What grpc.aio says in place of a status when a stream breaks while it is being written to.
_BROKEN_WHILE_WRITING: Final = "Internal error from Core"
_TYPES: Final[Mapping[grpc.StatusCode, type[QilaError]]] = {
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRangeError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.ABORTED: AbortedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
}


def from_rpc_error(error: grpc.RpcError) -> QilaError:
    """The typed error of a failed call; without ErrorInfo the reason is the status code's name."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        raise error
    code = error.code() or grpc.StatusCode.UNKNOWN
    message = error.details() or code.name
    if code is grpc.StatusCode.INTERNAL and message == _BROKEN_WHILE_WRITING:
        code, message = grpc.StatusCode.UNAVAILABLE, "the stream broke off while it was being written to"
    reason, metadata = code.name, {}
    for detail in _details(error):
        info = ErrorInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
    return _TYPES.get(code, QilaError)(code=code, reason=reason, message=message, metadata=metadata)


def _details(error: grpc.Call | grpc.aio.AioRpcError) -> Sequence[Any]:
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it asks for nothing that only one of them has
    except ValueError:
        # It was cancelled here while its own end was on the way: the two do not belong together.
        return ()
    return () if status is None else status.details


@contextmanager
def translated() -> Iterator[None]:
    """Turns gRPC's error into a QilaError."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
