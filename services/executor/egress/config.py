"""What the doors process is told once, at its start."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from services.executor.egress.limits import NO_LIMITS, TrafficLimits
from services.executor.egress.registries import DEFAULT_FILE


@dataclass(frozen=True, kw_only=True)
class DoorsConfig:
    """Who the doors become, which registries they lead to, and what the operator refuses and limits."""

    uid: int
    gid: int
    registries: Path = DEFAULT_FILE
    package_policy: Path | None = None
    traffic: TrafficLimits = NO_LIMITS

    def to_argument(self) -> str:
        """The one command-line argument that carries it."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_argument(cls, argument: str) -> "DoorsConfig":
        """Read what `to_argument` wrote."""
        fields = json.loads(argument)
        policy = fields.pop("package_policy")
        return cls(
            **{
                **fields,
                "registries": Path(fields["registries"]),
                "package_policy": None if policy is None else Path(policy),
                "traffic": TrafficLimits(**fields["traffic"]),
            }
        )
