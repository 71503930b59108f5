"""Egress policies and records, as a person writes and reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qila.cli.render import one_line
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

OPENINGS: Final = ("registries", "install", "none")
_VERDICTS: Final = {
    pb.EGRESS_VERDICT_ALLOWED: "allowed",
    pb.EGRESS_VERDICT_REFUSED: "REFUSED",
    pb.EGRESS_VERDICT_FAILED: "failed",
}
_PHASES: Final = {pb.EGRESS_PHASE_INSTALL: "INSTALL", pb.EGRESS_PHASE_RUN: "RUN"}


def policy_of(opening: str | None, hosts: Sequence[str]) -> pb.EgressPolicy:
    """The policy that the options say; the installation's default without them."""
    modes = {None: pb.EGRESS_MODE_UNSPECIFIED, "none": pb.EGRESS_MODE_NONE}
    return pb.EgressPolicy(
        mode=modes.get(opening, pb.EGRESS_MODE_REGISTRIES), hosts=hosts, install_only=opening == "install"
    )


def describe(policy: pb.EgressPolicy) -> str:
    """The policy in the words of the options, a line for each host."""
    opening = "install" if policy.install_only else "registries"
    if policy.mode != pb.EGRESS_MODE_REGISTRIES:
        opening = "none"
    return "\n".join([f"egress {opening}", *(f"allow-host {one_line(host)}" for host in policy.hosts)])


def describe_record(record: pb.EgressRecord) -> str:
    """One line: when, the verdict, who asked, for what, and by which rule."""
    asked = " ".join(filter(None, (record.method, f"{record.host}{record.path}"))) or "(no request)"
    fields = (
        record.time.ToJsonString(),
        f"{_VERDICTS.get(record.verdict, '?'):7}",
        f"{_PHASES.get(record.phase, '?'):7}",
        f"{record.exec_id or '-':29}",
        f"{record.status:3}",
        f"{record.bytes:>10}",
        asked,
        f"({record.rule})",
    )
    return one_line(" ".join(fields))
