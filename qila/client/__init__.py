"""Qila's Python client: `Client` and the errors that it raises."""

from qila.client.client import Client
from qila.client.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    QilaError,
    ResourceExhaustedError,
    UnavailableError,
)
from qila.client.execs import ExecStream, new_exec_id

__all__ = [
    "AlreadyExistsError",
    "Client",
    "ExecStream",
    "InvalidArgumentError",
    "NotFoundError",
    "QilaError",
    "ResourceExhaustedError",
    "UnavailableError",
    "new_exec_id",
]
