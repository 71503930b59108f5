"""Which environment is the current one, and the links in the workspace that lead to it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import structlog

from qila.executor.v1 import executor_pb2 as executor
from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway.patience import patiently
from services.gateway.ports import ExecutorPort
from services.rpc.errors import ErrorCode, QilaError

_LOG: Final = structlog.get_logger("services.gateway")


def is_current(plan: resolver.Plan, summary: executor.SurveySummary) -> bool:
    """Whether the plan's environment was the current one when the survey was made."""
    return any(
        item.current and (item.ecosystem, item.fingerprint) == (plan.ecosystem, plan.fingerprint)
        for item in summary.environments
    )


async def switch(
    executor_port: ExecutorPort,
    sandbox_id: str,
    plan: resolver.Plan,
    own_directories: Collection[str],
    *,
    patience: float,
) -> None:
    """Makes the plan's environment the current one, and renews the links for people unless theirs are in the place."""
    current = f".qila/current/{plan.ecosystem}"
    target = f"../env/{plan.ecosystem}/{plan.fingerprint}"
    await patiently(lambda: executor_port.make_link(sandbox_id, current, target, executor.USER_INSTALL), patience)
    for link in plan.links:
        if link.path not in own_directories:
            leads_to = "../" * link.path.count("/") + f"{current}/{link.directory}"
            await _link_for_people(executor_port, sandbox_id, link.path, leads_to, patience)


async def _link_for_people(
    executor_port: ExecutorPort, sandbox_id: str, path: str, leads_to: str, patience: float
) -> None:
    """Replaceable by the program, never trusted."""
    try:
        await patiently(lambda: executor_port.make_link(sandbox_id, path, leads_to, executor.USER_PROGRAM), patience)
    except QilaError as error:
        if error.code not in {ErrorCode.FAILED_PRECONDITION, ErrorCode.NOT_FOUND}:
            raise
        # Something of the program's came into its place since the survey: it wins.
        _LOG.info("own_directory_kept", sandbox_id=sandbox_id, path=path)
