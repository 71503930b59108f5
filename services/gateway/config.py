"""The gateway's configuration, from `QILA_*` variables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.gateway.http.config import HttpConfig, read_http_config
from services.rpc.config import ConfigError, Environment

DEFAULT_ADDRESS: Final = "127.0.0.1:7450"
DEFAULT_PREVIEW_ADDRESS: Final = "127.0.0.1:8081"
MINUTE: Final = 60.0
HOUR: Final = 3600.0
_LAST_PORT: Final = 65535


@dataclass(frozen=True, kw_only=True)
class ConductorConfig:
    """Bounds and defaults of execs. Times are in seconds.

    Attributes:
        patience: how long an exec that has begun waits for a service that does not answer.
        install_scripts: whether packages may run code of their own while they are installed.
    """

    run_timeout: float = 10 * MINUTE
    install_timeout: float = 15 * MINUTE
    output_limit_bytes: int = 64 << 20
    execs_per_sandbox: int = 16
    patience: float = MINUTE
    install_scripts: bool = True


@dataclass(frozen=True, kw_only=True)
class GatewayConfig:
    """Where the gateway listens, where its peers are, and where its records lie. `http` is None without that door."""

    address: str
    executor_address: str
    resolver_address: str
    database: Path
    log_level: str
    grace: float
    # Host and port; None where previews are switched off.
    preview_address: tuple[str, int] | None
    preview_key: Path
    conductor: ConductorConfig
    http: HttpConfig | None = None


def read_config(environment: Environment) -> GatewayConfig:
    """Reads QILA_STATE_DIR, QILA_RUN_DIR, QILA_LOG_LEVEL and what is the gateway's own.

    Raises:
        ConfigError: a value breaks its rule.
    """
    run = environment.run_directory()
    return GatewayConfig(
        address=environment.text("QILA_GATEWAY_ADDRESS", DEFAULT_ADDRESS),
        executor_address=f"unix:{run / 'executor.sock'}",
        resolver_address=f"unix:{run / 'resolver.sock'}",
        database=environment.state_directory() / "gateway" / "gateway.db",
        log_level=environment.log_level(),
        grace=environment.seconds("QILA_GATEWAY_GRACE", 10, minimum=0, maximum=HOUR),
        preview_address=_preview_address(environment),
        preview_key=environment.state_directory() / "gateway" / "preview.key",
        conductor=ConductorConfig(
            run_timeout=environment.seconds("QILA_RUN_TIMEOUT", 10 * MINUTE, minimum=1, maximum=24 * HOUR),
            install_timeout=environment.seconds("QILA_INSTALL_TIMEOUT", 15 * MINUTE, minimum=1, maximum=HOUR),
            output_limit_bytes=environment.size("QILA_OUTPUT_LIMIT", 64 << 20, minimum=1 << 10, maximum=1 << 30),
            execs_per_sandbox=environment.integer("QILA_EXECS_PER_SANDBOX", 16, minimum=1, maximum=16),
            install_scripts=environment.choice("QILA_INSTALL_SCRIPTS", ("run", "never"), "run") == "run",
        ),
        http=read_http_config(environment),
    )


def _preview_address(environment: Environment) -> tuple[str, int] | None:
    variable = "QILA_PREVIEW_ADDRESS"
    value = environment.text(variable, DEFAULT_PREVIEW_ADDRESS)
    if value == "off":
        return None
    host, _, port = value.rpartition(":")
    if host not in {"127.0.0.1", "[::1]"} or not port.isdecimal() or int(port) > _LAST_PORT:
        # A preview's URL says localhost: nobody but this machine could follow it.
        raise ConfigError(variable=variable, value=value, rule="must be 127.0.0.1:PORT, [::1]:PORT or off")
    return host.strip("[]"), int(port)
