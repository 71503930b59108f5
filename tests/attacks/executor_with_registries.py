"""The executor as it is, with a registries file of the test's own: its configuration has no such setting on purpose."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from services.executor import __main__ as executor
from services.executor import startup
from services.executor.config import ExecutorConfig, read_config
from services.executor.egress.config import DoorsConfig
from services.rpc.config import run_service


def doors_config(config: ExecutorConfig) -> DoorsConfig:
    return dataclasses.replace(startup.doors_config(config), registries=Path(sys.argv[1]))


if __name__ == "__main__":
    # Else the doors would lead to the public registries, and every attack on what is installed would show nothing.
    assert vars(executor)["doors_config"] is startup.doors_config
    vars(executor)["doors_config"] = doors_config
    sys.exit(run_service("executor", read_config, executor.main))
