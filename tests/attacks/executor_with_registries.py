"""The executor as it is, with a registries file of the test's own: its configuration has no such setting on purpose."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from services.executor import __main__ as executor
from services.executor.config import read_config
from services.executor.egress.config import DoorsConfig
from services.rpc.config import run_service

if __name__ == "__main__":
    vars(executor)["DoorsConfig"] = functools.partial(DoorsConfig, registries=Path(sys.argv[1]))
    sys.exit(run_service("executor", read_config, executor.main))
