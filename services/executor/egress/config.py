"""What the doors process is told once, at its start."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from services.executor.egress.registries import DEFAULT_FILE


@dataclass(frozen=True, kw_only=True)
class DoorsConfig:
    """Who the doors become and where they lead to.

    Attributes:
        uid: the user that the process becomes.
        gid: its group.
        registries: the file that names the registries.
        connect_hosts: exact hosts that a sandbox's policy may open to CONNECT.
        connect_registries: whether CONNECT may lead to the registries themselves, past the mirror.
    """

    uid: int
    gid: int
    registries: Path = DEFAULT_FILE
    connect_hosts: tuple[str, ...] = ()
    connect_registries: bool = False

    def to_argument(self) -> str:
        """The one command-line argument that carries it."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_argument(cls, argument: str) -> "DoorsConfig":
        """Read what `to_argument` wrote."""
        fields = json.loads(argument)
        registries, hosts = Path(fields["registries"]), tuple(fields["connect_hosts"])
        return cls(**{**fields, "registries": registries, "connect_hosts": hosts})
