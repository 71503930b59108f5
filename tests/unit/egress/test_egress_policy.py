from typing import Any, get_args

import pytest

from services.executor.egress.policy import (
    CLOSED,
    DEFAULT,
    Ceiling,
    EgressPolicy,
    InvalidPolicy,
    Opening,
    is_host_name,
)

GOOD: dict[str, Any] = {"registries": True, "hosts": ["plugins.example.org"], "install_only": False}


def test_a_policy_survives_the_way() -> None:
    for policy in (CLOSED, DEFAULT, EgressPolicy.from_message(GOOD)):
        assert EgressPolicy.from_message(policy.to_message()) == policy


@pytest.mark.parametrize(
    "message",
    [
        None, {}, [], "registries", {**GOOD, "more": 1}, {**GOOD, "registries": 1}, {**GOOD, "hosts": "*"},
        {**GOOD, "hosts": ["*"]}, {**GOOD, "hosts": [1]}, {**GOOD, "hosts": ["a.example"] * 33},
        {**GOOD, "install_only": None}, {"registries": True},
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_no_policy(message: Any) -> None:
    with pytest.raises(InvalidPolicy):
        EgressPolicy.from_message(message)


@pytest.mark.parametrize(
    "host",
    [
        "", "localhost", "example.org.", "Example.org", "*.example.org", "10.0.0.1", "0x7f.1", "1.2.3.0x4", "[::1]",
        "example.org:443", "user@example.org", "ex\0ample.org", "example.org/", "-a.example", "a_b.example",
        "example.org\n", "\u0435xample.org", "a" * 64 + ".example", "a." * 126 + "aa",
    ],
)  # fmt: skip
def test_what_is_no_host_name(host: str) -> None:
    assert not is_host_name(host)


def test_a_host_name() -> None:
    assert is_host_name("plugins-artifacts.gradle.example")


HOST = "plugins.example.org"
WIDE = EgressPolicy(registries=True, hosts=frozenset({HOST, "other.example.org"}))


def test_the_operator_s_ceiling_only_narrows() -> None:
    assert Ceiling(opening="none", hosts=WIDE.hosts).narrow(WIDE) == CLOSED
    assert Ceiling(hosts=frozenset({HOST})).narrow(WIDE) == EgressPolicy(registries=True, hosts=frozenset({HOST}))
    installs = Ceiling(opening="install").narrow(DEFAULT)
    assert (installs.registries, installs.install_only) == (True, True)
    for opening in get_args(Opening):
        assert Ceiling(opening=opening).narrow(CLOSED).registries is False
    narrower = EgressPolicy(registries=True, install_only=True)
    assert Ceiling().narrow(narrower) == narrower


def test_the_first_host_that_is_not_allowed_is_named() -> None:
    assert Ceiling(hosts=frozenset({HOST})).first_refused(WIDE.hosts) == "other.example.org"
    assert Ceiling(hosts=WIDE.hosts).first_refused(WIDE.hosts) is None
