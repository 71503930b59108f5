"""What the doors process is told once, at its start."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from services.executor.egress.limits import NO_LIMITS, TrafficLimits
from services.executor.egress.registries import DEFAULT_FILE


@dataclass(frozen=True, kw_only=True)
class DoorsConfig:
    """Who the doors become, where they lead to, and what the operator refuses and limits.

    Attributes:
        uid: the user that the process becomes.
        gid: its group.
        registries: the file that names the registries.
        cache_directory: where the mirror keeps what it fetched; must exist and belong to `uid`. None: nothing is kept.
        cache_bytes: the most that is kept.
        connect_hosts: exact hosts that a sandbox's policy may open to CONNECT.
        connect_registries: whether CONNECT may lead to the registries themselves, past the mirror.
        package_policy: the operator's file of package rules; None: nothing is refused.
        traffic: what one sandbox may take.
    """

    uid: int
    gid: int
    registries: Path = DEFAULT_FILE
    cache_directory: Path | None = None
    cache_bytes: int = 0
    connect_hosts: tuple[str, ...] = ()
    connect_registries: bool = False
    package_policy: Path | None = None
    traffic: TrafficLimits = NO_LIMITS

    def to_argument(self) -> str:
        """The one command-line argument that carries it."""
        fields = dataclasses.asdict(self)
        return json.dumps({key: str(value) if isinstance(value, Path) else value for key, value in fields.items()})

    @classmethod
    def from_argument(cls, argument: str) -> "DoorsConfig":
        """Read what `to_argument` wrote."""
        fields = json.loads(argument)
        cache, policy = fields["cache_directory"], fields["package_policy"]
        read = {
            "registries": Path(fields["registries"]),
            "cache_directory": None if cache is None else Path(cache),
            "connect_hosts": tuple(fields["connect_hosts"]),
            "package_policy": None if policy is None else Path(policy),
            "traffic": TrafficLimits(**fields["traffic"]),
        }
        return cls(**{**fields, **read})
