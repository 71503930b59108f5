"""The Docker Engine: its calls in threads, and its errors in the executor's own words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import docker
import docker.errors
import docker.utils
import requests.exceptions

from services.executor.errors import EngineError

Result = TypeVar("Result")

# The package blocks, so calls run in threads: few, because the engine serialises most of the work anyway.
THREADS = 8
CALL_TIMEOUT_S = 60


class MissingError(Exception):
    """The engine knows no such object."""


class ConflictError(Exception):
    """The object is there already, or in the wrong state."""


class Engine:
    """One engine. The connection is made with the first call."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="engine")
        self._api: Any = None

    async def call(self, operation: str, work: Callable[[Any], Result]) -> Result:
        """Runs `work` in a thread; third-party errors stop here. EngineError, MissingError, ConflictError."""

        def run() -> Result:
            if self._api is None:
                self._api = cast("Any", docker).APIClient(version="auto", timeout=CALL_TIMEOUT_S, **_from_environment())
            return work(self._api)

        try:
            return await self.in_thread(run)
        except docker.errors.NotFound as error:
            raise MissingError(str(error.explanation)) from error
        except docker.errors.APIError as error:
            if error.response is not None and error.response.status_code == requests.codes.conflict:
                raise ConflictError(str(error.explanation)) from error
            raise EngineError(operation, str(error.explanation or error)) from error
        except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
            raise EngineError(operation, _advice(error)) from error

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Runs what blocks, but asks nothing of the engine, in one of the same threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Gives back threads and connection."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._api is not None:
            self._api.close()


def _from_environment() -> dict[str, Any]:
    return cast("dict[str, Any]", docker.utils.kwargs_from_env())


def _advice(error: Exception) -> str:
    text = str(error)
    if "Permission denied" in text or "PermissionError" in text:
        return "not permitted to use the engine's socket; run as a user that may (root, say)"
    if "No such file" in text or "Connection refused" in text or "ConnectionRefused" in text:
        return "no Docker Engine answers; start it, or run 'make engine'"
    return text
