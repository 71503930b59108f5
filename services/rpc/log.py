"""Logs: one JSON object a line on standard error, readable colours on a terminal.

Whatever is bound in structlog's context variables (request id, sandbox id, exec id) stands on every line. The standard
library's loggers are routed into the same stream.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, Processor, WrappedLogger


def configure(service: str, *, level: str = "INFO") -> None:
    """Sets up structlog and the standard library's logging for this process.

    Args:
        service: its name; stands on every line.
        level: the least level that is written, as `logging` names it.
    """

    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_service,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        # Past the standard library's loggers: through them a line costs five times as much, and each exec writes four.
        processors=[*shared, *_renderers()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers()],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Its INFO lines tell of every statement and migration step: not news.
    logging.getLogger("alembic").setLevel(logging.WARNING)


def write_later(write: Callable[..., Any], event: str, **fields: Any) -> None:
    """Writes a line in the loop's next turn, behind all that is due in this one: nobody waits for it."""
    asyncio.get_running_loop().call_soon(functools.partial(write, event, **fields))


def _renderers() -> list[Processor]:
    if sys.stderr.isatty():
        return [structlog.dev.ConsoleRenderer()]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
