"""Qila's Python client: `Client`, `AsyncClient`, their execs, and the errors that they raise."""

from qila.client.async_client import AsyncClient
from qila.client.async_handles import AsyncExec
from qila.client.async_port_streams import AsyncPortStream
from qila.client.async_watches import AsyncFileWatch
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
from qila.client.file_requests import Digests, TreeDifference, TreeSync
from qila.client.handles import Exec
from qila.client.port_streams import PortStream
from qila.client.requests import ExecOptions, new_exec_id
from qila.client.results import ExecResult, TerminalSize
from qila.client.trees import LocalFile, async_unpack, unpack
from qila.client.watches import FileEvent, FileWatch, Resync

__all__ = [
    "AbortedError",
    "AlreadyExistsError",
    "AsyncClient",
    "AsyncExec",
    "AsyncFileWatch",
    "AsyncPortStream",
    "Client",
    "DeadlineExceededError",
    "Digests",
    "Exec",
    "ExecOptions",
    "ExecResult",
    "ExecStream",
    "FailedPreconditionError",
    "FileEvent",
    "FileWatch",
    "InvalidArgumentError",
    "LocalFile",
    "NotFoundError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "PortStream",
    "QilaError",
    "ResourceExhaustedError",
    "Resync",
    "TerminalSize",
    "TreeDifference",
    "TreeSync",
    "UnavailableError",
    "async_unpack",
    "new_exec_id",
    "unpack",
]
