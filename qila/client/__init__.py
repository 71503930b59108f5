"""Qila's Python client: `Client`, `AsyncClient`, their execs, and the errors that they raise."""

from qila.client.async_client import AsyncClient
from qila.client.async_handles import AsyncExec
from qila.client.client import Client
from qila.client.errors import (
    AbortedError,
    AlreadyExistsError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    QilaError,
    ResourceExhaustedError,
    UnavailableError,
)
from qila.client.execs import ExecStream
from qila.client.handles import Exec
from qila.client.requests import ExecOptions, new_exec_id
from qila.client.results import ExecResult, TerminalSize

__all__ = [
    "AbortedError",
    "AlreadyExistsError",
    "AsyncClient",
    "AsyncExec",
    "Client",
    "DeadlineExceededError",
    "Exec",
    "ExecOptions",
    "ExecResult",
    "ExecStream",
    "FailedPreconditionError",
    "InvalidArgumentError",
    "NotFoundError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "QilaError",
    "ResourceExhaustedError",
    "TerminalSize",
    "UnavailableError",
    "new_exec_id",
]
