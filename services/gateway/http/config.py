"""The HTTP door's configuration, from `QILA_HTTP_*` variables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from services.rpc.config import ConfigError, Environment

DEFAULT_ADDRESS: Final = "127.0.0.1:8080"
_MAX_NAMES: Final = 64
_HOST: Final = re.compile(r"(?:[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?\Z")
_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?\Z")


@dataclass(frozen=True, kw_only=True)
class HttpConfig:
    """Where the door listens and for whom.

    Attributes:
        address: a loopback `HOST:PORT`; port 0 takes a free one.
        hosts: what a Host header may say beside the address's own names, with the port as a client sends it.
        origins: the origins whose pages may call.
    """

    address: str
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


def read_http_config(environment: Environment) -> HttpConfig | None:
    """Reads QILA_HTTP_ADDRESS, QILA_HTTP_HOSTS and QILA_HTTP_ORIGINS; None if the address is `off`, or empty.

    Raises:
        ConfigError: a value breaks its rule.
    """
    address = environment.given_text("QILA_HTTP_ADDRESS", DEFAULT_ADDRESS)
    hosts = _names(environment, "QILA_HTTP_HOSTS", _HOST, "hosts in lower case with their port, as qila.test:8080")
    origins = _names(environment, "QILA_HTTP_ORIGINS", _ORIGIN, "origins in lower case, as http://127.0.0.1:3000")
    return HttpConfig(address=address, hosts=hosts, origins=origins) if address not in {"", "off"} else None


def _names(environment: Environment, variable: str, form: re.Pattern[str], rule: str) -> tuple[str, ...]:
    value = environment.text(variable)
    names = tuple(name.strip() for name in value.split(",")) if value else ()
    if len(names) > _MAX_NAMES or not all(form.match(name) for name in names):
        raise ConfigError(variable=variable, value=value, rule=f"must be up to {_MAX_NAMES} {rule}, commas between")
    return names
