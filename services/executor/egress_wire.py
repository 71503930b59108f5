"""Egress policies and records, from and to the wire."""

from __future__ import annotations

import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from qila.executor.v1 import executor_pb2 as pb
from services.executor.audit import Wanted
from services.executor.audit_log import Entry
from services.executor.egress.denials import denial_of
from services.executor.egress.policy import DEFAULT, MAX_HOSTS, EgressPolicy, is_host_name
from services.executor.egress.records import Verdict
from services.executor.errors import InvalidFieldError
from services.executor.ids import is_process_id

_PHASES = {"INSTALL": pb.EGRESS_PHASE_INSTALL, "RUN": pb.EGRESS_PHASE_RUN}
_VERDICTS = {
    "allowed": pb.EGRESS_VERDICT_ALLOWED,
    "refused": pb.EGRESS_VERDICT_REFUSED,
    "failed": pb.EGRESS_VERDICT_FAILED,
}
_WANTED_VERDICTS: dict[pb.EgressVerdict.ValueType, Verdict | None] = {
    pb.EGRESS_VERDICT_UNSPECIFIED: None,
    pb.EGRESS_VERDICT_ALLOWED: "allowed",
    pb.EGRESS_VERDICT_REFUSED: "refused",
    pb.EGRESS_VERDICT_FAILED: "failed",
}
_DENIALS = {
    "package": pb.EGRESS_DENIAL_PACKAGE,
    "releases": pb.EGRESS_DENIAL_RELEASES,
    "egress": pb.EGRESS_DENIAL_EGRESS,
}


def unpack_policy(policy: pb.EgressPolicy, *, new: bool) -> EgressPolicy:
    """The policy; of a new sandbox the default unless the message says another. InvalidFieldError."""
    modes = {pb.EGRESS_MODE_REGISTRIES, pb.EGRESS_MODE_NONE} | ({pb.EGRESS_MODE_UNSPECIFIED} if new else set())
    if policy.mode not in modes:
        raise InvalidFieldError("egress.mode", "must be REGISTRIES or NONE")
    if len(policy.hosts) > MAX_HOSTS:
        raise InvalidFieldError("egress.hosts", f"must be at most {MAX_HOSTS}")
    for host in policy.hosts:
        if not is_host_name(host):
            rule = f"{host[:64]!r} must be an exact lower-case name, as plugins.example.org: no address, port or *"
            raise InvalidFieldError("egress.hosts", rule)
    closed = policy.mode == pb.EGRESS_MODE_NONE
    if closed and policy.hosts:
        raise InvalidFieldError("egress.hosts", "must be empty with mode NONE")
    return EgressPolicy(
        registries=not closed and DEFAULT.registries, hosts=frozenset(policy.hosts), install_only=policy.install_only
    )


def pack_policy(policy: EgressPolicy) -> pb.EgressPolicy:
    """The policy as a message."""
    return pb.EgressPolicy(
        mode=pb.EGRESS_MODE_REGISTRIES if policy.registries else pb.EGRESS_MODE_NONE,
        hosts=sorted(policy.hosts),
        install_only=policy.install_only,
    )


def unpack_wanted(request: pb.ListEgressRequest) -> Wanted:
    """What a request wants to see. InvalidFieldError."""
    if request.exec_id and not is_process_id(request.exec_id):
        raise InvalidFieldError("exec_id", "must be 1 to 64 of [A-Za-z0-9_.-], or empty")
    if request.verdict not in _WANTED_VERDICTS:
        raise InvalidFieldError("verdict", "must be ALLOWED, REFUSED, FAILED or unspecified")
    return Wanted(exec_id=request.exec_id, verdict=_WANTED_VERDICTS[request.verdict], after=request.after_sequence)


def pack_entry(entry: Entry) -> pb.EgressRecord:
    """A record as a message."""
    record = entry.record
    denial = denial_of(record)
    time = Timestamp()
    time.FromDatetime(datetime.datetime.fromisoformat(entry.time))
    return pb.EgressRecord(
        sequence=entry.sequence,
        time=time,
        exec_id=entry.exec_id,
        phase=_PHASES[record.phase],
        uid=min(record.uid, 2**32 - 1),
        method=record.method,
        host=record.host,
        path=record.path,
        status=min(record.status, 2**32 - 1),
        verdict=_VERDICTS[record.verdict],
        rule=record.rule,
        bytes=record.bytes,
        digest=record.digest,
        denial=pb.EGRESS_DENIAL_UNSPECIFIED if denial is None else _DENIALS[denial.kind],
        package="" if denial is None else denial.package,
    )
