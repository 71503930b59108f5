from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from services.executor.config import read_config
from services.executor.errors import InvalidFieldError, QuotaUnavailableError
from services.executor.limits import grant
from services.executor.profile import Limits
from services.executor.quota import QuotaRefusedError, choose_quota
from services.executor.runtime.fake import FakeRuntime
from services.executor.runtime.port import Quota
from services.executor.space import LowWater
from services.rpc.config import ConfigError, Environment

DEFAULT = Limits(cpu_millis=1000, memory_bytes=2 << 30, pids=512, disk_bytes=10 << 30)
UNBOUNDED = Limits(cpu_millis=1000, memory_bytes=2 << 30, pids=512)
NOT_BOUNDED = "workspaces are not bounded: one program can fill the host's disk"
NOTHING: Mapping[str, int] = {"cpu_millis": 0, "memory_bytes": 0, "pids": 0, "disk_bytes": 0}


@pytest.mark.parametrize(
    ("offered", "wanted", "chosen", "detail"),
    [
        ([Quota.LOOP, Quota.ENGINE], "auto", Quota.LOOP, ""),
        ([Quota.ENGINE], "auto", Quota.ENGINE, "inodes are not bounded (loop: no loop here)"),
        (
            [Quota.NONE],
            "auto",
            Quota.NONE,
            f"{NOT_BOUNDED} (loop: no loop here; engine: no engine here)",
        ),
        ([Quota.LOOP, Quota.ENGINE], "engine", Quota.ENGINE, "inodes are not bounded (as the operator wants it)"),
        ([Quota.LOOP, Quota.ENGINE], "loop", Quota.LOOP, ""),
    ],
)
async def test_the_best_that_holds_is_chosen_and_what_it_lacks_is_said(
    offered: list[Quota], wanted: str, chosen: Quota, detail: str
) -> None:
    choice = await choose_quota(wanted, FakeRuntime(images=["i"], quotas=[*offered, Quota.NONE]), "i")
    assert (choice.quota, choice.detail) == (chosen, detail)


async def test_a_wanted_quota_that_does_not_hold_is_one_clear_line() -> None:
    with pytest.raises(QuotaRefusedError) as caught:
        await choose_quota("loop", FakeRuntime(images=["i"], quotas=[Quota.ENGINE, Quota.NONE]), "i")
    assert str(caught.value) == (
        "QILA_WORKSPACE_QUOTA=loop: it does not hold here: no loop here; mend that, or set 'auto'"
    )


def test_a_limit_of_the_disk_is_granted_within_its_bounds() -> None:
    assert grant(NOTHING, DEFAULT) == DEFAULT
    assert grant({**NOTHING, "disk_bytes": 64 << 20}, DEFAULT).disk_bytes == 64 << 20
    for wrong in ((64 << 20) - 1, (1 << 40) + 1):
        with pytest.raises(InvalidFieldError, match=r"limits\.disk_bytes: must be 67108864 to 1099511627776"):
            grant({**NOTHING, "disk_bytes": wrong}, DEFAULT)


def test_a_limit_that_nothing_enforces_is_refused_not_ignored() -> None:
    assert grant(NOTHING, UNBOUNDED) == UNBOUNDED
    with pytest.raises(QuotaUnavailableError, match="cannot bound a workspace"):
        grant({**NOTHING, "disk_bytes": 1 << 30}, UNBOUNDED)


def variables(tmp_path: Path, **changes: str) -> Environment:
    directories = {"QILA_STATE_DIR": str(tmp_path), "QILA_RUN_DIR": "/tmp/q", "QILA_SANDBOX_IMAGE": "image"}
    return Environment({**directories, **changes})


def test_the_disks_settings_have_defaults(tmp_path: Path) -> None:
    config = read_config(variables(tmp_path))
    assert (config.workspace_quota, config.workspace_inodes) == ("auto", 1_000_000)
    assert (config.default_limits.disk_bytes, config.low_water) == (10 << 30, LowWater(size=2 << 30))


def test_the_low_water_mark_is_a_size_or_a_share(tmp_path: Path) -> None:
    assert read_config(variables(tmp_path, QILA_DISK_LOW_WATER="5%")).low_water == LowWater(percent=5)
    assert read_config(variables(tmp_path, QILA_DISK_LOW_WATER="1GiB")).low_water == LowWater(size=1 << 30)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("QILA_WORKSPACE_QUOTA", "xfs"),
        ("QILA_WORKSPACE_SIZE", "1MiB"),
        ("QILA_WORKSPACE_INODES", "10"),
        ("QILA_DISK_LOW_WATER", "51%"),
        ("QILA_DISK_LOW_WATER", "-1"),
        ("QILA_DISK_LOW_WATER", "much"),
    ],
)
def test_a_bad_setting_of_the_disk_stops_the_service(tmp_path: Path, variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable}='{value}': must be "):
        read_config(variables(tmp_path, **{variable: value}))
