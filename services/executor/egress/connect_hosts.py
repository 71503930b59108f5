"""Which hosts a tunnel may lead to: decided by exact match in a set, without I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.executor.egress.policy import EgressPolicy, is_host_name
from services.executor.egress.records import INSTALL_UID
from services.executor.egress.registries import Registries
from services.executor.egress.verdicts import Refused


class InvalidConnectHosts(Exception):
    """The operator's list of hosts cannot be used."""

    def __init__(self, *, host: str, problem: str) -> None:
        super().__init__(host, problem)
        self.host = host
        self.problem = problem

    def __str__(self) -> str:
        return f"CONNECT to {self.host!r}: {self.problem}"


@dataclass(frozen=True, kw_only=True)
class ConnectHosts:
    """What the operator allows.

    Attributes:
        extra: hosts that a sandbox's policy may name.
        registries: the registries' own hosts.
        registries_open: whether these may be reached past the mirror, whose package rules do not hold there.
    """

    extra: frozenset[str] = frozenset()
    registries: frozenset[str] = frozenset()
    registries_open: bool = False


def connect_hosts(hosts: Sequence[str], *, registries: Registries, registries_open: bool) -> ConnectHosts:
    """Check the operator's list.

    Raises:
        InvalidConnectHosts: a host is no exact name, or is a registry's while these stay closed.
    """
    for host in hosts:
        if not is_host_name(host):
            raise InvalidConnectHosts(host=host, problem="this is no exact lower-case host name")
        if host in registries.hosts and not registries_open:
            raise InvalidConnectHosts(
                host=host,
                problem="a registry is reached through the mirror; set QILA_CONNECT_REGISTRIES=true to open it as well",
            )
    return ConnectHosts(extra=frozenset(hosts), registries=registries.hosts, registries_open=registries_open)


def allowed_hosts(policy: EgressPolicy, operator: ConnectHosts) -> frozenset[str]:
    """The exact set: both the policy and the operator must want a host in it."""
    hosts = policy.hosts & operator.extra
    if policy.registries and operator.registries_open:
        hosts |= operator.registries
    return hosts if operator.registries_open else hosts - operator.registries


def decide(host: str, *, policy: EgressPolicy, operator: ConnectHosts, uid: int, install_open: bool) -> None:
    """Return if the user may have a tunnel to the host now.

    Raises:
        Refused: no, and why.
    """
    if not policy.registries and not policy.hosts:
        raise Refused(status=403, rule="policy: closed", advice="this sandbox's egress policy opens no door.")
    if uid == INSTALL_UID and not install_open:
        raise Refused(
            status=403,
            rule="no install is running",
            advice="no install is running in this sandbox, and what one left behind may not use the doors.",
        )
    if policy.install_only and uid != INSTALL_UID:
        raise Refused(
            status=403,
            rule="policy: install only",
            advice="the doors of this sandbox are open during installs alone.",
        )
    if host in allowed_hosts(policy, operator):
        return
    if host in operator.registries and not operator.registries_open:
        raise Refused(
            status=403,
            rule="connect: registry",
            advice=f"{host} is reached through the mirror at 127.0.0.1:7480; the operator opens no tunnel to it.",
        )
    raise Refused(
        status=403,
        rule="connect: host",
        advice=f"{host} is not among the hosts that this sandbox's policy and the operator allow.",
    )
