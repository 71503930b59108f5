"""What kind of rule refused a request, as its record tells: the operator's package policy, or an egress policy."""

import re
from dataclasses import dataclass
from typing import Literal

from services.executor.egress.records import EgressRecord

# `package`: what was asked for; `releases`: they were left out of an index; `egress`: a policy or limit of the sandbox.
Kind = Literal["package", "releases", "egress"]

_PACKAGE = re.compile(r"policy: (?:(?P<package>\S+): )?.+")
_RELEASES = re.compile(r"[0-9]+ \S+ left out: policy: (?:(?P<package>\S+): )?.+")
_EGRESS_RULES = frozenset(
    {"policy: closed", "policy: install only", "limit: bytes", "connect: host", "connect: registry"}
)


@dataclass(frozen=True, kw_only=True)
class Denial:
    """Which kind of rule it was, and the package that it refused; empty if the rule names none."""

    kind: Kind
    package: str = ""


def denial_of(record: EgressRecord) -> Denial | None:
    """Read what `PackageRules.refusal` and the sandbox's door wrote into a rule; None for every other record."""
    if record.verdict != "refused":
        return None
    if record.rule in _EGRESS_RULES:
        return Denial(kind="egress")
    if match := _PACKAGE.fullmatch(record.rule):
        return Denial(kind="package", package=match["package"] or "")
    if match := _RELEASES.fullmatch(record.rule):
        return Denial(kind="releases", package=match["package"] or "")
    return None
