"""From records and the executor's words to messages of the gateway."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.egress import from_executor
from services.gateway.store.port import ExecOutline, ExecRecord, SandboxRecord


def pack_file(file: executor.FileInfo) -> pb.FileInfo:
    """A file, as a listing or a look at it tells."""
    return pb.FileInfo(
        name=file.name,
        # The two enumerations have the same numbers.
        kind=pb.FileKind.ValueType(file.kind),
        size=file.size,
        mtime_ns=file.mtime_ns,
        executable=file.executable,
        link_target=file.link_target,
    )


def pack_sandbox(record: SandboxRecord, egress: executor.EgressPolicy | None = None) -> pb.Sandbox:
    """A sandbox; its policy only where the executor was asked for it."""
    return pb.Sandbox(
        egress=None if egress is None else from_executor(egress),
        id=record.sandbox_id,
        language=record.language,
        image=record.image,
        create_time=timestamp(record.create_time_ns),
        limits=pb.Limits(
            cpu_millis=record.cpu_millis,
            memory_bytes=record.memory_bytes,
            pids=record.pids,
            disk_bytes=record.disk_bytes,
        ),
    )


def pack_exec(record: ExecRecord | ExecOutline) -> pb.Exec:
    """An exec, with its end if it has one."""
    message = pb.Exec(
        id=record.exec_id,
        sandbox_id=record.sandbox_id,
        create_time=timestamp(record.create_time_ns),
        phase=pb.Phase.ValueType(record.phase),
        fingerprint=record.fingerprint,
    )
    if record.end_time_ns:
        message.end_time.CopyFrom(timestamp(record.end_time_ns))
        message.ended.CopyFrom(pb.ExecEnded.FromString(record.ended))
    return message


def timestamp(nanoseconds: int) -> Timestamp:
    """Nanoseconds since 1970 for the wire."""
    made = Timestamp()
    made.FromNanoseconds(nanoseconds)
    return made
