"""What the doors decided, in the client's words: policies, records, and why they made an install fail."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import structlog

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.convert import InstallFailedError
from services.gateway.patience import patiently
from services.gateway.ports import ExecutorPort
from services.rpc.errors import QilaError

_LOG: Final = structlog.get_logger("services.gateway")
_MAX_RULES: Final = 20
# A package that is refused as a whole makes all of these; what else fails has another cause.
_BY_A_REFUSAL: Final = frozenset(
    {
        pb.INSTALL_FAILURE_REASON_UNSPECIFIED,
        pb.INSTALL_FAILURE_REASON_NOT_FOUND,
        pb.INSTALL_FAILURE_REASON_NO_SOLUTION,
        pb.INSTALL_FAILURE_REASON_BUILD_FAILED,
        pb.INSTALL_FAILURE_REASON_NETWORK_DENIED,
        pb.INSTALL_FAILURE_REASON_POLICY_DENIED,
    }
)


def to_executor(policy: pb.EgressPolicy) -> executor.EgressPolicy:
    """The client's policy as the executor takes it; the executor checks it."""
    # The two enumerations have the same numbers.
    mode = executor.EgressMode.ValueType(policy.mode)
    return executor.EgressPolicy(mode=mode, hosts=policy.hosts, install_only=policy.install_only)


def from_executor(policy: executor.EgressPolicy) -> pb.EgressPolicy:
    """The executor's policy as the client sees it."""
    mode = pb.EgressMode.ValueType(policy.mode)
    return pb.EgressPolicy(mode=mode, hosts=policy.hosts, install_only=policy.install_only)


def egress_record(record: executor.EgressRecord) -> pb.EgressRecord:
    """The executor's record as the client sees it; the two enumerations of each kind have the same numbers."""
    return pb.EgressRecord(
        sequence=record.sequence,
        time=record.time,
        exec_id=record.exec_id,
        phase=pb.EgressPhase.ValueType(record.phase),
        uid=record.uid,
        method=record.method,
        host=record.host,
        path=record.path,
        status=record.status,
        verdict=pb.EgressVerdict.ValueType(record.verdict),
        rule=record.rule,
        bytes=record.bytes,
        digest=record.digest,
        denial=pb.EgressDenial.ValueType(record.denial),
        package=record.package,
    )


async def explained(
    executor_port: ExecutorPort,
    sandbox_id: str,
    exec_id: str,
    *,
    after: int,
    failure: InstallFailedError,
    patience: float,
) -> InstallFailedError:
    """The failure of an install as the doors explain it, from their records; as it was, if they have no part in it.

    Args:
        executor_port: has the records.
        sandbox_id: where it ran.
        exec_id: the exec that it ran for.
        after: sequence of the newest record before the install.
        failure: the failure in the installer's own words.
        patience: seconds to wait for an executor that does not answer.
    """
    if failure.reason not in _BY_A_REFUSAL:
        return failure
    request = executor.ListEgressRequest(
        sandbox_id=sandbox_id,
        exec_id=exec_id,
        verdict=executor.EGRESS_VERDICT_REFUSED,
        after_sequence=after,
    )
    try:
        denials = await patiently(lambda: _denials(executor_port, request), patience)
    except QilaError as error:
        _LOG.warning("refusals_not_read", sandbox_id=sandbox_id, exec_id=exec_id, error=str(error))
        return failure
    return _judged(failure, denials)


async def _denials(executor_port: ExecutorPort, request: executor.ListEgressRequest) -> Sequence[executor.EgressRecord]:
    """One record of each refusing rule, at most 20 of each kind, the whole packages first."""
    found: dict[tuple[executor.EgressDenial.ValueType, str], executor.EgressRecord] = {}
    async with aclosing(executor_port.list_egress(request)) as responses:
        async for response in responses:
            for record in response.records:
                if record.denial and sum(kind == record.denial for kind, _ in found) < _MAX_RULES:
                    found.setdefault((record.denial, record.rule), record)
    return sorted(found.values(), key=lambda record: record.denial)


def _judged(failure: InstallFailedError, denials: Sequence[executor.EgressRecord]) -> InstallFailedError:
    by_packages = [record for record in denials if _caused(record, failure)]
    if by_packages:
        return _failed(pb.INSTALL_FAILURE_REASON_POLICY_DENIED, by_packages, failure)
    by_egress = [record for record in denials if record.denial == executor.EGRESS_DENIAL_EGRESS]
    if by_egress:
        return _failed(pb.INSTALL_FAILURE_REASON_NETWORK_DENIED, by_egress, failure)
    return failure


def _caused(record: executor.EgressRecord, failure: InstallFailedError) -> bool:
    """Whether a rule about a package has to do with the failure.

    An index is seldom without a release that is too young: that counts only if the installer speaks of the package.
    """
    if record.denial == executor.EGRESS_DENIAL_RELEASES:
        return bool(record.package) and record.package.lower() in failure.detail.lower()
    return record.denial == executor.EGRESS_DENIAL_PACKAGE


def _failed(
    reason: pb.InstallFailureReason.ValueType, records: Sequence[executor.EgressRecord], failure: InstallFailedError
) -> InstallFailedError:
    lines = [f"the doors refused: {record.rule}" for record in records]
    return InstallFailedError(reason, "\n".join([*lines, failure.detail]).rstrip("\n"), failure.hints)
