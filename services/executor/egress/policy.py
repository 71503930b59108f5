"""What one sandbox may reach. A bad or empty policy closes; it never opens."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

MAX_HOSTS = 32
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# A name with a letter in its last label: every spelling of an IP address is none.
_HOST = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")


class InvalidPolicy(Exception):
    """A policy that cannot be read; whoever gets it closes the doors."""

    def __init__(self, *, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"invalid egress policy: {self.problem}"


@dataclass(frozen=True, kw_only=True)
class EgressPolicy:
    """The egress policy of a sandbox.

    Attributes:
        registries: whether the doors lead to the package registries.
        hosts: further exact host names that CONNECT may reach; each must be allowed by the operator as well.
        install_only: whether the doors are open during INSTALL alone.
    """

    registries: bool = False
    hosts: frozenset[str] = frozenset()
    install_only: bool = False

    def to_message(self) -> dict[str, object]:
        """The form in which it is stored and sent."""
        return {"registries": self.registries, "hosts": sorted(self.hosts), "install_only": self.install_only}

    @classmethod
    def from_message(cls, message: Any) -> "EgressPolicy":
        """Read what `to_message` wrote, strictly.

        Raises:
            InvalidPolicy: a key is missing, unknown, of the wrong type, or a host is no plain lower-case name.
        """
        if not isinstance(message, dict) or set(message) != {"registries", "hosts", "install_only"}:
            raise InvalidPolicy(problem="it must have exactly the keys registries, hosts, install_only")
        registries, hosts, install_only = message["registries"], message["hosts"], message["install_only"]
        if not isinstance(registries, bool) or not isinstance(install_only, bool):
            raise InvalidPolicy(problem="registries and install_only must be true or false")
        if not isinstance(hosts, list) or len(hosts) > MAX_HOSTS:
            raise InvalidPolicy(problem=f"hosts must be a list of at most {MAX_HOSTS}")
        for host in hosts:
            if not isinstance(host, str) or not is_host_name(host):
                raise InvalidPolicy(problem="a host must be an exact lower-case name such as plugins.example.org")
        return cls(registries=registries, hosts=frozenset(hosts), install_only=install_only)


CLOSED = EgressPolicy()
DEFAULT = EgressPolicy(registries=True)

Opening = Literal["registries", "install", "none"]


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The most that the operator allows; a sandbox can only narrow it.

    Attributes:
        opening: `registries`, `install` (the doors of every sandbox are open during INSTALL alone) or `none`.
        hosts: exact names that a sandbox's policy may name for CONNECT.
    """

    opening: Opening = "registries"
    hosts: frozenset[str] = frozenset()

    def narrow(self, policy: EgressPolicy) -> EgressPolicy:
        """The policy in force for a sandbox that asked for `policy`."""
        if self.opening == "none":
            return CLOSED
        return replace(
            policy, hosts=policy.hosts & self.hosts, install_only=policy.install_only or self.opening == "install"
        )

    def first_refused(self, hosts: Iterable[str]) -> str | None:
        """The first host, by name, that the operator does not allow."""
        return min(set(hosts) - self.hosts, default=None)


def is_host_name(text: str) -> bool:
    """Whether the text is one exact host name: lower case, two labels at least, no address, no trailing dot."""
    return _HOST.fullmatch(text) is not None
