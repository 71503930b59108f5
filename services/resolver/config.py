"""What the resolver is told by its environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from services.rpc.config import Environment

DEFAULT_WORKERS = 2
MEBIBYTE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ResolverConfig:
    """Settings of the service; seconds and bytes are those of one call."""

    run_directory: Path
    log_level: str
    workers: int
    deadline_seconds: float
    memory_bytes: int


def read_config(environment: Environment) -> ResolverConfig:
    """Read and validate `QILA_*`; raises ConfigError."""
    return ResolverConfig(
        run_directory=environment.run_directory(),
        log_level=environment.log_level(),
        workers=environment.integer("QILA_RESOLVER_WORKERS", DEFAULT_WORKERS, minimum=1, maximum=64),
        deadline_seconds=environment.seconds("QILA_RESOLVER_DEADLINE", 30, minimum=1, maximum=300),
        memory_bytes=environment.size(
            "QILA_RESOLVER_MEMORY", 1536 * MEBIBYTE, minimum=512 * MEBIBYTE, maximum=16384 * MEBIBYTE
        ),
    )
