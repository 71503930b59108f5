from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.rpc.config import ConfigError, Environment, StartError, run_service

if TYPE_CHECKING:
    from collections.abc import Callable


def test_values_are_read_by_type() -> None:
    environment = Environment({"N": "7", "D": "1.5h", "S": "2GiB", "P": "/x/y", "F": "true"})
    assert environment.integer("N", 1, minimum=0, maximum=9) == 7
    assert environment.seconds("D", 1, minimum=0, maximum=1e6) == 5400
    assert environment.size("S", 1, minimum=0, maximum=1 << 40) == 2 << 30
    assert environment.directory("P", Path("/")) == Path("/x/y")
    assert environment.flag("F", default=False)


def test_unset_and_empty_give_the_default() -> None:
    environment = Environment({"N": ""})
    assert environment.integer("N", 3, minimum=0, maximum=9) == 3
    assert environment.seconds("D", 90, minimum=0, maximum=100) == 90


@pytest.mark.parametrize(
    "read",
    [
        lambda environment: environment.integer("X", 1, minimum=0, maximum=9),
        lambda environment: environment.seconds("X", 1, minimum=0, maximum=9),
        lambda environment: environment.size("X", 1, minimum=0, maximum=9),
        lambda environment: environment.choice("X", ("a", "b"), "a"),
        lambda environment: environment.directory("X", Path("/")),
    ],
)
def test_bad_value_names_variable_value_and_rule(read: Callable[[Environment], object]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(Environment({"X": "12x"}))
    assert str(caught.value).startswith("X='12x': must be ")


def test_config_error_is_one_line_and_exit_code_two(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QILA_LOG_LEVEL", "LOUD")

    async def main(_level: str) -> None:
        raise AssertionError

    assert run_service("gateway", Environment.log_level, main) == 2
    error = capsys.readouterr().err
    assert error.startswith("qila gateway: QILA_LOG_LEVEL='LOUD': must be one of ")
    assert error.count("\n") == 1


def test_start_error_is_one_line_and_exit_code_one(capsys: pytest.CaptureFixture[str]) -> None:
    async def main(_level: str) -> None:
        raise StartError("no Docker")

    assert run_service("executor", Environment.log_level, main) == 1
    assert capsys.readouterr().err == "qila executor: no Docker\n"
