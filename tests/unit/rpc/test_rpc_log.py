"""What a service's log looks like to whoever reads it."""

from __future__ import annotations

import json
import subprocess
import sys

_PROGRAM = """
import asyncio, logging, structlog
from services.rpc import log

log.configure("gateway")
line = structlog.get_logger("services.somewhere")

async def main():
    structlog.contextvars.bind_contextvars(exec_id="ex_1")
    log.write_later(line.info, "later", code=3)
    structlog.contextvars.bind_contextvars(exec_id="ex_2")
    line.debug("too small")
    line.warning("now")
    logging.getLogger("library").info("from a library")
    await asyncio.sleep(0)
    try:
        raise ValueError("why")
    except ValueError:
        line.exception("broken")

asyncio.run(main())
"""


def test_every_line_is_one_object_with_the_bound_ids() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    now, library, later, broken = [json.loads(line) for line in done.stderr.splitlines()]
    assert (now["event"], now["level"], now["service"], now["exec_id"]) == ("now", "warning", "gateway", "ex_2")
    assert (library["event"], library["level"], library["exec_id"]) == ("from a library", "info", "ex_2")
    # What was bound when it was written counts, not what is bound a turn later.
    assert (later["event"], later["code"], later["exec_id"]) == ("later", 3, "ex_1")
    assert "ValueError: why" in broken["exception"]
    assert all(line["timestamp"].endswith("Z") for line in (now, library, later, broken))
