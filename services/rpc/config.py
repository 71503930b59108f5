"""A small typed reader of `QILA_*` variables. A bad value stops a service with one clear line."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

Config = TypeVar("Config")

DEFAULT_STATE_DIRECTORY: Final = Path("/var/lib/qila")
DEFAULT_RUN_DIRECTORY: Final = Path("/run/qila")
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_UNIT_BYTES: Final = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_EXIT_CONFIG: Final = 2
_EXIT_START: Final = 1


@dataclass(kw_only=True, eq=False)
class ConfigError(Exception):
    """A variable has a value that it may not have."""

    variable: str
    value: str
    rule: str

    def __str__(self) -> str:
        return f"{self.variable}={self.value!r}: {self.rule}"


class StartError(Exception):
    """The service cannot start here; its text is the one line that the operator sees."""


class Environment:
    """Variables of the process, read by type. Each reader raises `ConfigError`; an empty value counts as unset."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def text(self, variable: str, default: str = "") -> str:
        """Any text without control characters."""
        value = self._variables.get(variable, "") or default
        if any(ord(character) < ord(" ") for character in value):
            raise ConfigError(variable=variable, value=value, rule="must not contain control characters")
        return value

    def given_text(self, variable: str, default: str) -> str:
        """As `text`, but a variable that is set and empty gives an empty text."""
        return "" if self._variables.get(variable) == "" else self.text(variable, default)

    def choice(self, variable: str, choices: Sequence[str], default: str) -> str:
        """One of the choices."""
        value = self.text(variable, default)
        if value not in choices:
            raise ConfigError(variable=variable, value=value, rule=f"must be one of {', '.join(choices)}")
        return value

    def flag(self, variable: str, *, default: bool) -> bool:
        """True or false, spelled so."""
        return self.choice(variable, ("true", "false"), "true" if default else "false") == "true"

    def integer(self, variable: str, default: int, *, minimum: int, maximum: int) -> int:
        """A whole number within both bounds."""
        value = self.text(variable, str(default))
        if not re.fullmatch(r"-?[0-9]{1,18}", value) or not minimum <= int(value) <= maximum:
            raise ConfigError(variable=variable, value=value, rule=f"must be a whole number, {minimum} to {maximum}")
        return int(value)

    def seconds(self, variable: str, default: float, *, minimum: float, maximum: float) -> float:
        """A duration such as `90s`, `15m`, `1.5h`, `7d` or `250ms`, in seconds."""
        value = self.text(variable, f"{default}s")
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", value)
        amount = float(found[1]) * _UNIT_SECONDS[found[2]] if found else -1
        if not found or not minimum <= amount <= maximum:
            rule = f"must be a duration such as 90s, 15m or 2h, {minimum:g}s to {maximum:g}s"
            raise ConfigError(variable=variable, value=value, rule=rule)
        return amount

    def size(self, variable: str, default: int, *, minimum: int, maximum: int) -> int:
        """A size such as `512MiB` or `10GiB`, in bytes."""
        value = self.text(variable, str(default))
        found = re.fullmatch(r"([0-9]{1,18})(KiB|MiB|GiB|TiB|)", value)
        amount = int(found[1]) * _UNIT_BYTES[found[2]] if found else -1
        if not found or not minimum <= amount <= maximum:
            rule = f"must be a size such as 512MiB or 10GiB, {minimum} to {maximum} bytes"
            raise ConfigError(variable=variable, value=value, rule=rule)
        return amount

    def size_or_percent(self, variable: str, default: int, *, maximum: int, max_percent: int) -> tuple[int, int]:
        """A size such as `2GiB`, or a share such as `5%`: bytes and percent, of which one is zero."""
        value = self.text(variable, str(default))
        found = re.fullmatch(r"([0-9]{1,3})%", value)
        if found and int(found[1]) <= max_percent:
            return 0, int(found[1])
        try:
            return self.size(variable, default, minimum=0, maximum=maximum), 0
        except ConfigError:
            rule = (
                f"must be a size such as 2GiB, at most {maximum} bytes, or a share such as 5%, at most {max_percent}%"
            )
            raise ConfigError(variable=variable, value=value, rule=rule) from None

    def directory(self, variable: str, default: Path) -> Path:
        """An absolute path that is a directory or is not there yet."""
        value = self.text(variable, str(default))
        path = Path(value)
        if not path.is_absolute():
            raise ConfigError(variable=variable, value=value, rule="must be an absolute path")
        if path.exists() and not path.is_dir():
            raise ConfigError(variable=variable, value=value, rule="must be a directory; something else is there")
        return path

    def state_directory(self) -> Path:
        """QILA_STATE_DIR: what outlives the services."""
        return self.directory("QILA_STATE_DIR", DEFAULT_STATE_DIRECTORY)

    def run_directory(self) -> Path:
        """QILA_RUN_DIR: the services' sockets."""
        return self.directory("QILA_RUN_DIR", DEFAULT_RUN_DIRECTORY)

    def log_level(self) -> str:
        """QILA_LOG_LEVEL, as `logging` names it."""
        return self.choice("QILA_LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR"), "INFO")


def run_service(
    name: str, read: Callable[[Environment], Config], main: Callable[[Config], Coroutine[None, None, None]]
) -> int:
    """Reads the configuration once, runs the service, and words what stops it from starting.

    Args:
        name: of the service, in front of an error's line.
        read: makes the service's configuration; raises `ConfigError`.
        main: runs until the service was told to stop; raises `StartError` if it cannot start.

    Returns:
        The exit code: 0, 2 for a bad variable, 1 for a service that cannot start.
    """
    try:
        config = read(Environment(os.environ))
        asyncio.run(main(config))
    except ConfigError as error:
        return _complain(name, error, _EXIT_CONFIG)
    except StartError as error:
        return _complain(name, error, _EXIT_START)
    return 0


def _complain(name: str, error: Exception, exit_code: int) -> int:
    sys.stderr.write(f"qila {name}: {error}\n")
    return exit_code
