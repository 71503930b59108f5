"""The documented rules of a client's requests. A breach raises INVALID_ARGUMENT that names the field and the rule."""

from __future__ import annotations

import base64
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration

from qila.gateway.v1 import gateway_pb2 as pb
from services.rpc.errors import QilaError, invalid_argument, not_found

MAX_UPLOAD_BYTES: Final = 2 << 30
MAX_CHUNK_BYTES: Final = 64 << 10
MAX_FILES: Final = 20_000
MAX_BATCH: Final = 500
MAX_OUTPUT_LIMIT: Final = 1 << 30
MAX_RUN_SECONDS: Final = 24 * 3600
MAX_INSTALL_SECONDS: Final = 3600
MAX_LOCK_BYTES: Final = 16 << 20
MAX_PREVIEW_SECONDS: Final = 24 * 3600
DEFAULT_PREVIEW_SECONDS: Final = 3600
MAX_PAGE_SIZE: Final = 1000
_DEFAULT_PAGE_SIZE: Final = 100
MAX_TERMINAL_SIZE: Final = 4096
_MAX_SIGNAL: Final = 31
_MAX_PATH_BYTES: Final = 4096
_LAST_PORT: Final = 65535
_OWN_PORTS: Final = frozenset({7480, 7481})
_MAX_NAME_BYTES: Final = 255
_MAX_NAMES: Final = 64
MAX_DEPTH: Final = 64
_MAX_PATTERNS: Final = 16
_MAX_PATTERN_BYTES: Final = 1024
_MAX_ENV_ENTRIES: Final = 256
_MAX_ENV_BYTES: Final = 128 << 10
_MAX_ARGUMENTS: Final = 4096
_MAX_ARGUMENT_BYTES: Final = 256 << 10
_SANDBOX_ID: Final = re.compile(r"sb_[a-z2-7]{26}\Z")
_EXEC_ID: Final = re.compile(r"ex_[a-z2-7]{26}\Z")
_TRANSFER: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_LANGUAGE: Final = re.compile(r"[a-z][a-z0-9]{0,31}\Z")
_MODULE: Final = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?\Z")


def mint_exec_id() -> str:
    """A new exec id: 130 random bits."""
    return "ex_" + base64.b32encode(secrets.token_bytes(17)).decode().lower()[:26]


def no_such_sandbox(sandbox_id: str) -> QilaError:
    """NOT_FOUND, with what to do."""
    message = f"no sandbox {sandbox_id[:64]!r}; make one with CreateSandbox, or list them with ListSandboxes"
    return not_found("SANDBOX_NOT_FOUND", message, sandbox_id=sandbox_id[:64])


def no_such_exec(sandbox_id: str, exec_id: str) -> QilaError:
    """NOT_FOUND, with what to do."""
    message = f"sandbox {sandbox_id} has no exec {exec_id[:64]!r}; Exec answers the id of the one it starts"
    return not_found("EXEC_NOT_FOUND", message, sandbox_id=sandbox_id, exec_id=exec_id[:64])


def check_sandbox_id(sandbox_id: str) -> None:
    """An id of another form cannot be one of ours: NOT_FOUND, without a look into the store."""
    if not _SANDBOX_ID.match(sandbox_id):
        raise no_such_sandbox(sandbox_id)


def check_exec_id(exec_id: str) -> None:
    """Empty, or an exec id."""
    _require("exec_id", not exec_id or bool(_EXEC_ID.match(exec_id)), "must be ex_ and 26 of [a-z2-7], or empty")


def check_language(language: str, field: str = "language") -> None:
    """Empty, or a short lower-case name."""
    _require(field, not language or bool(_LANGUAGE.match(language)), "must be a lower-case name, as python")


def check_port(port: int) -> None:
    """A port of a program, as PortHeader says."""
    fits = 0 < port <= _LAST_PORT and port not in _OWN_PORTS
    _require("port", fits, "must be 1 to 65535, and not one of Qila's own, 7480 and 7481")


def preview_seconds(ttl: Duration) -> float:
    """How long a preview's URL works."""
    if ttl == Duration():
        return DEFAULT_PREVIEW_SECONDS
    seconds = ttl.ToTimedelta().total_seconds()
    _require("ttl", 1 <= seconds <= MAX_PREVIEW_SECONDS, "must be 1 second to 24 hours")
    return seconds


def check_path(field: str, path: str, *, empty: bool = False) -> None:
    """A path relative to the workspace, as WriteFileHeader says."""
    if not path:
        _require(field, empty, "must not be empty")
        return
    parts = path.split("/")
    _require(field, len(os.fsencode(path)) <= _MAX_PATH_BYTES, f"must be at most {_MAX_PATH_BYTES} bytes")
    _require(field, "\0" not in path, "must not contain NUL")
    _require(field, not path.startswith("/"), "must be relative to the workspace, without a leading /")
    _require(field, not {"", ".", ".."} & set(parts), "must have no empty part and no part . or ..")
    longest = max(len(os.fsencode(part)) for part in parts)
    _require(field, longest <= _MAX_NAME_BYTES, f"must have no part above {_MAX_NAME_BYTES} bytes")


def check_transfer(transfer_id: str, offset: int, *, empty: bool = True) -> None:
    """The id of a transfer, and where in it a stream begins."""
    if transfer_id or not empty:
        _require("transfer_id", bool(_TRANSFER.match(transfer_id)), "must be 1 to 64 of [A-Za-z0-9_-]")
    _require("offset", bool(transfer_id) or not offset, "needs a transfer_id, under which what lies before it is held")
    _require("offset", offset <= MAX_UPLOAD_BYTES, "must be at most 2 GiB")


def check_etag(etag: str, offset: int) -> None:
    """Which archive of a tree an offset is of."""
    _require("etag", len(etag) <= _MAX_NAME_BYTES, "must be as a header said it")
    _require("etag", bool(etag) or not offset, "must say of which archive the offset is")


def check_sha256(sha256: str, *, field: str = "sha256") -> None:
    """Empty, or a digest in hex."""
    _require(field, not sha256 or bool(_SHA256.match(sha256)), "must be 64 of [0-9a-f], or empty")


def check_ignored_names(names: Sequence[str]) -> None:
    """Names of directories."""
    fits = all(0 < len(os.fsencode(name)) <= _MAX_NAME_BYTES for name in names)
    _require("ignored_names", len(names) <= _MAX_NAMES, f"must be at most {_MAX_NAMES}")
    _require("ignored_names", fits, f"must have 1 to {_MAX_NAME_BYTES} bytes each")


def check_listing(depth: int, patterns: Sequence[str]) -> None:
    """How deep to list, and by what patterns; their grammar is looked at where they are used."""
    _require("depth", depth <= MAX_DEPTH, f"must be at most {MAX_DEPTH}")
    _require("patterns", len(patterns) <= _MAX_PATTERNS, f"must be at most {_MAX_PATTERNS}")
    sizes = [len(os.fsencode(pattern)) for pattern in patterns]
    _require(
        "patterns",
        all(0 < size <= _MAX_PATTERN_BYTES for size in sizes),
        f"must have 1 to {_MAX_PATTERN_BYTES} bytes each",
    )


def check_exec_request(request: pb.ExecRequest) -> None:
    """Everything in an ExecRequest."""
    check_sandbox_id(request.sandbox_id)
    check_exec_id(request.exec_id)
    match request.WhichOneof("what"):
        case "program":
            _check_program(request.program)
            _check_names("extras", request.extras)
            _check_names("groups", request.groups)
        case "command":
            _check_no_options(request)
            _require("command.argv", bool(request.command.argv and request.command.argv[0]), "must name a command")
            _check_arguments("command.argv", request.command.argv)
            check_path("command.working_directory", request.command.working_directory, empty=True)
        case _:
            raise invalid_argument("FIELD_INVALID", "what: must be a program or a command", field="what")
    _check_env(request.env)
    _check_duration("run_timeout", request.run_timeout, MAX_RUN_SECONDS)
    _check_duration("install_timeout", request.install_timeout, MAX_INSTALL_SECONDS)
    _check_interaction(request)
    _require("output_limit_bytes", request.output_limit_bytes <= MAX_OUTPUT_LIMIT, "must be at most 1 GiB")


def check_terminal(terminal: pb.Terminal) -> None:
    """A size that a terminal can have."""
    for field in ("rows", "columns"):
        within = 1 <= getattr(terminal, field) <= MAX_TERMINAL_SIZE
        _require(f"terminal.{field}", within, f"must be 1 to {MAX_TERMINAL_SIZE}")


def check_signal(number: int) -> None:
    """A signal as Linux numbers them, real-time signals left out."""
    _require("signal", 1 <= number <= _MAX_SIGNAL, f"must be 1 to {_MAX_SIGNAL}")


def page_size_of(asked: int) -> int:
    """How many rows a page has at most."""
    return min(asked or _DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def check_lock(field: str, lock: pb.Lockfile) -> None:
    """A lockfile's name and size; what is in it, the resolver reads."""
    check_path(f"{field}.name", lock.name)
    _require(f"{field}.name", "/" not in lock.name, "must be a file's name, without /")
    _require(f"{field}.content", len(lock.content) <= MAX_LOCK_BYTES, "must be at most 16 MiB")


def _check_program(program: pb.Program) -> None:
    named = [program.file, program.module, program.script]
    _require("program", sum(bool(name) for name in named) <= 1, "must have at most one of file, module and script")
    check_path("program.file", program.file, empty=True)
    check_language(program.language, "program.language")
    _require("program.module", len(program.module) <= _MAX_NAME_BYTES, "must be at most 255 characters")
    _require("program.module", not program.module or bool(_MODULE.match(program.module)), "must be a dotted name")
    _require("program.script", len(os.fsencode(program.script)) <= _MAX_NAME_BYTES, "must be at most 255 bytes")
    _require("program.script", "\0" not in program.script, "must not contain NUL")
    _check_arguments("program.args", program.args)
    check_path("program.working_directory", program.working_directory, empty=True)
    _check_arguments("program.command", program.command)
    _require("program.command", not program.command or bool(program.command[0]), "must name a command, or be empty")


def _check_interaction(request: pb.ExecRequest) -> None:
    for field, asked in (("stdin", request.stdin), ("terminal", request.HasField("terminal"))):
        rule = "must not be together with install_missing: what one run has read, another cannot"
        _require(field, not (asked and request.install_missing), rule)
    if request.HasField("terminal"):
        check_terminal(request.terminal)
    _check_duration("idle_timeout", request.idle_timeout, MAX_RUN_SECONDS)
    at_least_one = request.idle_timeout == Duration() or request.idle_timeout.seconds >= 1
    _require("idle_timeout", at_least_one, "must be 0 (no limit), or at least 1 second")


def _check_names(field: str, names: Sequence[str]) -> None:
    _require(field, len(names) <= _MAX_NAMES, f"must be at most {_MAX_NAMES}")
    _require(field, all(_NAME.match(name) for name in names), "must be names of letters, digits, '.', '_' and '-'")


def _check_no_options(request: pb.ExecRequest) -> None:
    for field in ("install_missing", "no_detection", "extras", "groups", "install_all"):
        _require(field, not getattr(request, field), "is for programs; a command runs as it is")


def _check_arguments(field: str, arguments: Iterable[str]) -> None:
    values = list(arguments)
    _require(field, len(values) <= _MAX_ARGUMENTS, f"must be at most {_MAX_ARGUMENTS}")
    size = sum(len(os.fsencode(value)) + 1 for value in values)
    _require(field, size <= _MAX_ARGUMENT_BYTES, f"must be at most {_MAX_ARGUMENT_BYTES} bytes together")
    _require(field, not any("\0" in value for value in values), "must not contain NUL")


def _check_env(env: Mapping[str, str]) -> None:
    _require("env", len(env) <= _MAX_ENV_ENTRIES, f"must be at most {_MAX_ENV_ENTRIES} entries")
    size = sum(len(os.fsencode(name)) + len(os.fsencode(value)) + 2 for name, value in env.items())
    _require("env", size <= _MAX_ENV_BYTES, f"must be at most {_MAX_ENV_BYTES} bytes together")
    for name, value in env.items():
        _require("env", bool(name) and "=" not in name, "names must not be empty nor contain =")
        _require("env", "\0" not in name + value, "must not contain NUL")


def _check_duration(field: str, duration: Duration, maximum: int) -> None:
    within = 0 <= duration.seconds <= maximum and 0 <= duration.nanos < 10**9
    total = duration.seconds + duration.nanos / 1e9
    _require(field, within and total <= maximum, f"must be 0 (the default) to {maximum} seconds")


def _require(field: str, holds: bool, rule: str) -> None:  # noqa: FBT001  # the condition itself
    if not holds:
        raise invalid_argument("FIELD_INVALID", f"{field}: {rule}", field=field)
