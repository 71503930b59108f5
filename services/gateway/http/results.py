"""An exec as one JSON answer: its output as text, within bounds, and how it ended."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.http.plain import plain, schema_of, text_or_base64

_HALF_BYTES: Final = 512 << 10
_MAX_ENTRIES: Final = 2000
OUTPUT_BYTES: Final = 2 * _HALF_BYTES


class Clipped:
    """The first and the last half MiB of what is added."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self.left_out = 0

    def add(self, data: bytes) -> None:
        """Adds bytes; the middle goes where it becomes too much."""
        room = _HALF_BYTES - len(self._head)
        self._head += data[:room]
        rest = data[room:]
        if not rest:
            return
        self._tail.append(rest)
        self._tail_bytes += len(rest)
        while self._tail_bytes > _HALF_BYTES:
            over = self._tail_bytes - _HALF_BYTES
            oldest = self._tail.popleft()
            if len(oldest) > over:
                self._tail.appendleft(oldest[over:])
            gone = min(over, len(oldest))
            self._tail_bytes -= gone
            self.left_out += gone

    def content(self) -> bytes:
        """What is kept."""
        return bytes(self._head) + b"".join(self._tail)


class ExecResult:
    """What a client that reads no stream is told of an exec when it has ended."""

    def __init__(self) -> None:
        self._created = pb.ExecCreated()
        self._install = Clipped()
        self._begin_run(0)
        self._packages: list[dict[str, str]] = []
        self._notices: list[dict[str, Any]] = []
        self._plan: pb.PlanMade | None = None
        self._ended: pb.ExecEnded | None = None

    async def take(self, events: AsyncGenerator[pb.ExecEvent, None]) -> None:
        """Takes the events up to the end."""
        async with aclosing(events):
            async for event in events:
                self._add(event)

    def document(self) -> dict[str, Any]:
        """The answer."""
        ended = self._ended or pb.ExecEnded(sandbox_lost=pb.SandboxLost(detail="the exec's events have no end"))
        kind = ended.WhichOneof("end") or "sandbox_lost"
        return {
            "id": self._created.exec_id,
            "sandbox_id": self._created.sandbox_id,
            **_as_text("output", self._install.content() + self._merged.content()),
            "exit_code": ended.exited if kind == "exited" else None,
            "end": {kind: plain(ended)[kind]},
            **_as_text("stdout", self._streams[pb.STREAM_STDOUT].content()),
            **_as_text("stderr", self._streams[pb.STREAM_STDERR].content()),
            "output_bytes_left_out": self._install.left_out + self._merged.left_out,
            "dropped_bytes": ended.dropped_bytes,
            "runs": self._run + 1,
            "packages": self._packages,
            "missing_imports": [plain(item) for item in ended.missing_imports],
            "notices": self._notices,
            **({} if self._plan is None else {"plan": plain(self._plan)}),
        }

    def _add(self, event: pb.ExecEvent) -> None:
        match event.WhichOneof("event"):
            case "created":
                self._created = event.created
            case "phase_started" if event.phase_started.phase == pb.PHASE_RUN:
                self._begin_run(event.phase_started.run)
            case "plan_made":
                self._plan = event.plan_made
            case "package" if event.package.action == pb.PACKAGE_ACTION_INSTALLED:
                self._installed(event.package)
            case "notice" if len(self._notices) < _MAX_ENTRIES:
                self._notices.append(plain(event.notice))
            case "output" if event.output.phase == pb.PHASE_RUN:
                self._streams[_kept_as(event.output.stream)].add(event.output.data)
                self._merged.add(event.output.data)
            case "ended":
                self._ended = event.ended

    def _begin_run(self, run: int) -> None:
        """What an earlier run wrote, before something that it lacked was added, is not this one's."""
        self._run = run
        self._merged = Clipped()
        self._streams = {pb.STREAM_STDOUT: Clipped(), pb.STREAM_STDERR: Clipped()}

    def _installed(self, package: pb.PackageProgress) -> None:
        words = f"{package.name}=={package.version}" if package.version else package.name
        self._install.add(f"Installing {words}\n".encode())
        if len(self._packages) < _MAX_ENTRIES:
            self._packages.append({"name": package.name, "version": package.version})


def _kept_as(stream: pb.Stream.ValueType) -> pb.Stream.ValueType:
    """What a terminal shows is told as stdout."""
    return pb.STREAM_STDERR if stream == pb.STREAM_STDERR else pb.STREAM_STDOUT


def result_schema(components: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of `ExecResult.document`."""
    text = {"type": "string"}
    count = {"type": "integer"}
    ended = pb.ExecEnded.DESCRIPTOR
    schema_of(ended, components)
    ends = {field.name: components["ExecEnded"]["properties"][field.name] for field in ended.oneofs[0].fields}
    package = {"type": "object", "properties": {"name": text, "version": text}, "required": ["name", "version"]}
    missing = schema_of(pb.MissingImport.DESCRIPTOR, components)
    properties: dict[str, Any] = {
        "id": text,
        "sandbox_id": text,
        "output": text | {"description": "A line for each package that was installed, then what the program wrote."},
        "exit_code": {"type": ["integer", "null"], "description": "Null unless the program exited by itself."},
        "end": {"type": "object", "properties": ends, "minProperties": 1, "maxProperties": 1},
        "stdout": text,
        "stderr": text,
        "output_bytes_left_out": count | {"description": "Of the middle of `output`: it holds 1 MiB at most."},
        "dropped_bytes": count | {"description": "Written beyond the exec's own limit of output, and not kept."},
        "runs": count,
        "packages": {"type": "array", "items": package},
        "missing_imports": {"type": "array", "items": missing},
        "notices": {"type": "array", "items": schema_of(pb.Notice.DESCRIPTOR, components)},
    }
    required = list(properties)
    raw = {f"{name}_base64": {"type": "string", "format": "byte"} for name in ("output", "stdout", "stderr")}
    optional = {"plan": schema_of(pb.PlanMade.DESCRIPTOR, components), **raw}
    return {"type": "object", "properties": properties | optional, "required": required}


def _as_text(name: str, content: bytes) -> dict[str, str]:
    """Text, with the exact bytes beside it where they are no UTF-8."""
    return {name: content.decode("utf-8", "replace")} | text_or_base64(name, content)
