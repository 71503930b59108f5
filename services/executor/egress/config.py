"""What the doors process is told once, at its start."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from services.executor.egress.registries import DEFAULT_FILE


@dataclass(frozen=True, kw_only=True)
class DoorsConfig:
    """Who the doors become and which registries they lead to."""

    uid: int
    gid: int
    registries: Path = DEFAULT_FILE

    def to_argument(self) -> str:
        """The one command-line argument that carries it."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_argument(cls, argument: str) -> "DoorsConfig":
        """Read what `to_argument` wrote."""
        fields = json.loads(argument)
        return cls(**{**fields, "registries": Path(fields["registries"])})
