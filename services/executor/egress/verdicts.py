"""How a request is turned away, and the account that is kept of each one while it is served."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.executor.egress.limits import NO_LIMITS, Allowance
from services.executor.egress.records import EgressRecord, Phase, Verdict, printable


class TurnedAway(Exception):
    """A request that gets an error instead of an artefact; `advice` is the plain text that the client is shown."""

    verdict: Verdict

    def __init__(self, *, status: int, rule: str, advice: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, rule)
        self.status = status
        self.rule = rule
        self.advice = advice
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        return f"{self.status} {self.rule}"


class Refused(TurnedAway):
    """What was asked is not allowed."""

    verdict = "refused"


class UpstreamFailed(TurnedAway):
    """What was asked is allowed, but the registry did not deliver it."""

    verdict = "failed"


@dataclass(kw_only=True)
class Visit:
    """One request and what has come of it so far; it counts as failed until a door says otherwise.

    Whoever streams a body to the client calls `await visit.allowance.spend(len(chunk))` before it writes each chunk.
    """

    sandbox: str
    phase: Phase
    uid: int
    method: str = ""
    path: str = ""
    host: str = ""
    status: int = 0
    verdict: Verdict = "failed"
    rule: str = "client closed"
    bytes: int = 0
    digest: str = ""
    allowance: Allowance = field(default_factory=lambda: Allowance(NO_LIMITS))

    def conclude(self, verdict: Verdict, rule: str, status: int) -> None:
        """Settle what the record will say."""
        self.verdict = verdict
        self.rule = rule
        self.status = status

    def record(self) -> EgressRecord:
        """The record as it stands."""
        return EgressRecord(
            sandbox=self.sandbox,
            phase=self.phase,
            uid=self.uid,
            method=printable(self.method)[:32],
            host=self.host,
            path=printable(self.path),
            status=self.status,
            verdict=self.verdict,
            rule=self.rule,
            bytes=self.bytes,
            digest=self.digest,
        )
