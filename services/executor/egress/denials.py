"""What kind of rule refused a request, as its record tells: the operator's package policy, or an egress policy."""

import re
from dataclasses import dataclass
from typing import Literal

from services.executor.egress.records import EgressRecord

# `package`: all of it; `releases`: some of it were left out of an index; `egress`: a policy or limit of the sandbox.
Kind = Literal["package", "releases", "egress"]

_PACKAGE = re.compile(r"policy: (?P<package>\S+): .+")
_RELEASES = re.compile(r"[0-9]+ \S+ left out: policy: (?P<package>\S+): .+")
_EGRESS_PREFIXES = ("policy: ", "limit: ")


@dataclass(frozen=True, kw_only=True)
class Denial:
    """Which kind of rule it was, and the package that it refused; no package if the rule was not about one."""

    kind: Kind
    package: str = ""


def denial_of(record: EgressRecord) -> Denial | None:
    """Read what `PackageRules.refusal` and the sandbox's door wrote into a rule; None for every other record."""
    if record.verdict != "refused":
        return None
    if match := _PACKAGE.fullmatch(record.rule):
        return Denial(kind="package", package=match["package"])
    if match := _RELEASES.fullmatch(record.rule):
        return Denial(kind="releases", package=match["package"])
    return Denial(kind="egress") if record.rule.startswith(_EGRESS_PREFIXES) else None
