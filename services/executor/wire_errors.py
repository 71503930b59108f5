"""The executor's own errors as every service speaks them."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from services.executor import errors
from services.rpc.errors import ErrorCode, QilaError

_FILE_CODES = {
    "not_found": ErrorCode.NOT_FOUND,
    "no_space": ErrorCode.RESOURCE_EXHAUSTED,
    "too_large": ErrorCode.RESOURCE_EXHAUSTED,
    "watch_limit": ErrorCode.RESOURCE_EXHAUSTED,
    "invalid_path": ErrorCode.INVALID_ARGUMENT,
    "permission_denied": ErrorCode.PERMISSION_DENIED,
    "out_of_range": ErrorCode.OUT_OF_RANGE,
    "invalid_tree": ErrorCode.INVALID_ARGUMENT,
    "digest_mismatch": ErrorCode.INVALID_ARGUMENT,
    "busy": ErrorCode.ABORTED,
    "tree_changed": ErrorCode.ABORTED,
}
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CODES: Mapping[type[errors.ExecutorError], tuple[ErrorCode, str]] = {
    errors.SandboxNotFoundError: (ErrorCode.NOT_FOUND, "SANDBOX_NOT_FOUND"),
    errors.ProcessNotFoundError: (ErrorCode.NOT_FOUND, "PROCESS_NOT_FOUND"),
    errors.ProcessExistsError: (ErrorCode.ALREADY_EXISTS, "PROCESS_EXISTS"),
    errors.PortClosedError: (ErrorCode.FAILED_PRECONDITION, "PORT_CLOSED"),
    errors.PortBrokenError: (ErrorCode.ABORTED, "PORT_BROKEN"),
    errors.ProcessEndedError: (ErrorCode.FAILED_PRECONDITION, "PROCESS_ENDED"),
    errors.NoTerminalError: (ErrorCode.FAILED_PRECONDITION, "NO_TERMINAL"),
    errors.StdinNotOpenError: (ErrorCode.FAILED_PRECONDITION, "STDIN_NOT_OPEN"),
    errors.StdinEndedError: (ErrorCode.FAILED_PRECONDITION, "STDIN_ENDED"),
    errors.StdinGapError: (ErrorCode.OUT_OF_RANGE, "STDIN_GAP"),
    errors.StdinTakenOverError: (ErrorCode.ABORTED, "STDIN_TAKEN_OVER"),
    errors.OldAgentError: (ErrorCode.FAILED_PRECONDITION, "SANDBOX_TOO_OLD"),
    errors.OffsetError: (ErrorCode.OUT_OF_RANGE, "OFFSET_BEYOND_END"),
    errors.HostNotAllowedError: (ErrorCode.INVALID_ARGUMENT, "HOST_NOT_ALLOWED"),
    errors.LimitError: (ErrorCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED"),
    errors.InvalidFieldError: (ErrorCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    errors.EngineError: (ErrorCode.UNAVAILABLE, "ENGINE_UNAVAILABLE"),
    errors.ImageMissingError: (ErrorCode.UNAVAILABLE, "IMAGE_MISSING"),
    errors.ImageUnknownError: (ErrorCode.INVALID_ARGUMENT, "IMAGE_UNKNOWN"),
    errors.ImageNotAllowedError: (ErrorCode.FAILED_PRECONDITION, "IMAGE_NOT_ALLOWED"),
    errors.WorkspaceError: (ErrorCode.UNAVAILABLE, "WORKSPACE_UNAVAILABLE"),
    errors.WorkspaceMissingError: (ErrorCode.FAILED_PRECONDITION, "WORKSPACE_MISSING"),
    errors.QuotaUnavailableError: (ErrorCode.FAILED_PRECONDITION, "QUOTA_UNAVAILABLE"),
    errors.DiskLowError: (ErrorCode.RESOURCE_EXHAUSTED, "DISK_LOW"),
    errors.AgentUnavailableError: (ErrorCode.UNAVAILABLE, "AGENT_UNAVAILABLE"),
    errors.DoorsError: (ErrorCode.UNAVAILABLE, "DOORS_UNAVAILABLE"),
    errors.ProtocolError: (ErrorCode.UNAVAILABLE, "AGENT_UNAVAILABLE"),
}


@contextmanager
def wire_errors() -> Iterator[None]:
    """The executor's own errors become the vocabulary that every service speaks."""
    try:
        yield
    except errors.FileCallError as error:
        code = _FILE_CODES.get(error.kind, ErrorCode.FAILED_PRECONDITION)
        raise QilaError(code=code, reason=f"FILE_{error.kind.upper()}", message=str(error)) from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        message = "the host's disk is full; remove sandboxes or files, or make room on the host"
        raise QilaError(code=ErrorCode.RESOURCE_EXHAUSTED, reason="DISK_LOW", message=message) from error
    except errors.ExecutorError as error:
        code, reason = _CODES[type(error)]
        raise QilaError(code=code, reason=reason, message=str(error)) from error
