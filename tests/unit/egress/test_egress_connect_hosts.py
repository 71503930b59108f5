import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.egress.connect_hosts import (
    ConnectHosts,
    InvalidConnectHosts,
    allowed_hosts,
    connect_hosts,
    decide,
)
from services.executor.egress.policy import CLOSED, DEFAULT, EgressPolicy
from services.executor.egress.registries import load_registries
from services.executor.egress.verdicts import Refused

REGISTRIES = load_registries()
REGISTRY = REGISTRIES.pypi.origins["index"].host
BUCKET = REGISTRIES.go.redirects[0].removeprefix("https://").partition("/")[0]
EXTRA = "plugins.example.org"
OTHER = "data.example.org"
OPERATOR = connect_hosts([EXTRA, OTHER], registries=REGISTRIES, registries_open=False)
GENEROUS = connect_hosts([EXTRA, OTHER], registries=REGISTRIES, registries_open=True)
STRICT = connect_hosts([], registries=REGISTRIES, registries_open=False)


def verdict(
    host: str, policy: EgressPolicy, operator: ConnectHosts = OPERATOR, *, uid: int = 1000, install_open: bool = False
) -> str:
    try:
        decide(host, policy=policy, operator=operator, uid=uid, install_open=install_open)
    except Refused as refused:
        return refused.rule
    return "allowed"


def policy(*hosts: str, registries: bool = False, install_only: bool = False) -> EgressPolicy:
    return EgressPolicy(registries=registries, hosts=frozenset(hosts), install_only=install_only)


@pytest.mark.parametrize(
    ("host", "sandbox", "operator", "expected"),
    [
        (EXTRA, policy(EXTRA), OPERATOR, "allowed"),
        (EXTRA, policy(EXTRA, registries=True), OPERATOR, "allowed"),
        (EXTRA, policy(EXTRA), STRICT, "connect: host"),
        (EXTRA, policy(OTHER), OPERATOR, "connect: host"),
        (EXTRA, DEFAULT, OPERATOR, "connect: host"),
        (EXTRA, CLOSED, OPERATOR, "policy: closed"),
        (REGISTRY, DEFAULT, OPERATOR, "connect: registry"),
        (REGISTRY, policy(REGISTRY, registries=True), OPERATOR, "connect: registry"),
        (REGISTRY, DEFAULT, GENEROUS, "allowed"),
        (REGISTRY, policy(EXTRA), GENEROUS, "connect: host"),
        (REGISTRY, CLOSED, GENEROUS, "policy: closed"),
        (BUCKET, DEFAULT, GENEROUS, "connect: host"),
        (f"evil-{EXTRA}", policy(EXTRA), OPERATOR, "connect: host"),
        (f"evil.{EXTRA}", policy(EXTRA), OPERATOR, "connect: host"),
        (f"{EXTRA}.evil.example", policy(EXTRA), OPERATOR, "connect: host"),
        ("example.org", policy(EXTRA), OPERATOR, "connect: host"),
    ],
)
def test_both_the_policy_and_the_operator_must_want_a_host(
    host: str, sandbox: EgressPolicy, operator: ConnectHosts, expected: str
) -> None:
    assert verdict(host, sandbox, operator) == expected


def test_phases() -> None:
    during = policy(EXTRA, install_only=True)
    assert verdict(EXTRA, during) == "policy: install only"
    assert verdict(EXTRA, during, install_open=True) == "policy: install only"
    assert verdict(EXTRA, during, uid=1001) == "no install is running"
    assert verdict(EXTRA, during, uid=1001, install_open=True) == "allowed"
    assert verdict(EXTRA, policy(EXTRA), uid=1001) == "no install is running"
    assert verdict(EXTRA, policy(EXTRA), uid=1001, install_open=True) == "allowed"


@pytest.mark.parametrize("host", ["", "Plugins.example.org", "plugins.example.org.", "*.example.org", "127.0.0.1"])
def test_an_operators_host_must_be_exact(host: str) -> None:
    with pytest.raises(InvalidConnectHosts):
        connect_hosts([EXTRA, host], registries=REGISTRIES, registries_open=True)


def test_a_registry_among_the_operators_hosts_is_a_mistake_unless_registries_are_open() -> None:
    with pytest.raises(InvalidConnectHosts, match="QILA_CONNECT_REGISTRIES"):
        connect_hosts([REGISTRY], registries=REGISTRIES, registries_open=False)
    assert REGISTRY in connect_hosts([REGISTRY], registries=REGISTRIES, registries_open=True).extra


_HOSTS = st.sampled_from([EXTRA, OTHER, REGISTRY, BUCKET, "example.org", f"a{EXTRA}", f"{EXTRA}.", "", "org"])


@given(
    host=_HOSTS | st.text(max_size=20),
    sandbox=st.builds(EgressPolicy, registries=st.booleans(), hosts=st.frozensets(_HOSTS), install_only=st.booleans()),
    operator=st.sampled_from([OPERATOR, GENEROUS, STRICT, ConnectHosts()]),
    uid=st.sampled_from([0, 1000, 1001, 65534]),
    install_open=st.booleans(),
)
def test_law_accepted_implies_in_the_exact_set(
    host: str, sandbox: EgressPolicy, operator: ConnectHosts, uid: int, *, install_open: bool
) -> None:
    accepted = verdict(host, sandbox, operator, uid=uid, install_open=install_open) == "allowed"
    by_policy = host in sandbox.hosts and host in operator.extra
    by_registries = sandbox.registries and operator.registries_open and host in REGISTRIES.hosts
    in_phase = install_open if uid == 1001 else not sandbox.install_only
    assert accepted == ((by_policy or by_registries) and in_phase)
    assert (host in allowed_hosts(sandbox, operator)) == (by_policy or by_registries)
