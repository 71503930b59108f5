"""The profile as the engine is asked for it, and what programs are told of their limits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import docker
import pytest

from services.executor.limit_variables import limit_variables
from services.executor.profile import Limits, load_profile
from services.executor.runtime.docker_container import container_settings, masked_paths
from services.executor.runtime.port import SandboxSpec

PROFILE = load_profile()
FILTER: dict[str, Any] = json.loads(PROFILE.seccomp)
REFUSED = [
    "add_key",
    "bpf",
    "chroot",
    "clone3",
    "fsopen",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kcmp",
    "kexec_load",
    "keyctl",
    "mount",
    "move_mount",
    "name_to_handle_at",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_vm_readv",
    "process_vm_writev",
    "quotactl",
    "request_key",
    "setns",
    "swapon",
    "umount2",
    "unshare",
    "userfaultfd",
]
# What engines mask and make read-only by themselves; an explicit list replaces theirs, so ours must have all of it.
ENGINE_MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]
ENGINE_READ_ONLY = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}


def host_config() -> dict[str, Any]:
    spec = SandboxSpec(
        sandbox_id="sb_test", image="image", limits=PROFILE.limits, socket_directory=Path("/run/qila/sb/sb_test")
    )
    with docker.APIClient(base_url="tcp://127.0.0.1:1", version="1.41") as api:
        settings = container_settings(api, PROFILE, spec, name="name", labels={}, runtime="runsc")
    found: dict[str, Any] = settings["host_config"]
    return found


def test_every_call_is_refused_but_those_that_are_listed() -> None:
    assert (FILTER["defaultAction"], FILTER["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    assert {rule["action"] for rule in FILTER["syscalls"]} == {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"}
    # Calls of a 32-bit program have other numbers and fewer checks: there are none.
    assert all(row["subArchitectures"] == [] for row in FILTER["archMap"])


@pytest.mark.parametrize("name", REFUSED)
def test_a_dangerous_call_is_not_on_the_list(name: str) -> None:
    assert name not in {n for rule in FILTER["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for n in rule["names"]}


@pytest.mark.parametrize("name", ["socket", "socketpair", "clone", "personality"])
def test_a_call_that_is_good_and_bad_is_never_allowed_without_a_look_at_its_arguments(name: str) -> None:
    rules = [rule for rule in FILTER["syscalls"] if name in rule["names"]]
    assert rules
    assert all(rule["args"] for rule in rules)
    # Two conditions on one argument would be alternatives to the engine, not both needed.
    for rule in rules:
        indices = [argument["index"] for argument in rule["args"]]
        assert len(indices) == len(set(indices))


def test_what_the_engine_masks_by_itself_is_masked() -> None:
    assert set(ENGINE_MASKED) <= set(PROFILE.masked)
    assert set(PROFILE.read_only) >= ENGINE_READ_ONLY


def test_patterns_become_the_paths_of_this_machine(tmp_path: Path) -> None:
    for name in ("cpu0", "cpu1"):
        (tmp_path / name / "thermal_throttle").mkdir(parents=True)
    found = list(masked_paths(["/proc/keys", f"{tmp_path}/cpu*/thermal_throttle"]))
    assert found == ["/proc/keys", *(f"{tmp_path}/cpu{index}/thermal_throttle" for index in (0, 1))]


def test_the_engine_is_asked_for_every_row() -> None:
    config = host_config()
    assert f"seccomp={PROFILE.seccomp}" in config["SecurityOpt"]
    assert "no-new-privileges" in config["SecurityOpt"]
    assert {"/proc/keys", "/sys/firmware"} <= set(config["MaskedPaths"])
    assert config["ReadonlyPaths"] == list(PROFILE.read_only)
    assert config["Sysctls"] == dict(PROFILE.sysctls)
    assert (config["Dns"], config["DnsSearch"], config["ExtraHosts"]) == (["127.0.0.1"], ["."], ["sandbox:127.0.0.1"])
    assert config["Memory"] == config["MemorySwap"] == PROFILE.limits.memory_bytes
    assert config["Tmpfs"] == dict(PROFILE.tmpfs)
    assert (config["Runtime"], config["NetworkMode"], config["ReadonlyRootfs"]) == ("runsc", "none", True)
    assert [(m["Target"], m["Type"], m["ReadOnly"]) for m in config["Mounts"]] == [
        ("/sandbox", "volume", False),
        ("/run/qila", "bind", True),
    ]


def test_another_filter_is_another_profile() -> None:
    assert PROFILE.digest() == load_profile().digest()
    assert PROFILE.digest() != dataclasses.replace(PROFILE, seccomp="{}").digest()


@pytest.mark.parametrize(
    ("cpu_millis", "memory_mib", "processors", "pool", "heap"),
    [(10, 64, "1", "4", 48), (1000, 2048, "1", "4", 1536), (1001, 512, "2", "4", 384), (16000, 4096, "16", "16", 3072)],
)
def test_limits_as_programs_are_told(cpu_millis: int, memory_mib: int, processors: str, pool: str, heap: int) -> None:
    told = limit_variables(Limits(cpu_millis=cpu_millis, memory_bytes=memory_mib << 20, pids=64))
    assert told["PYTHON_CPU_COUNT"] == told["GOMAXPROCS"] == told["OMP_NUM_THREADS"] == processors
    assert told["UV_THREADPOOL_SIZE"] == pool
    assert told["NODE_OPTIONS"] == f"--max-old-space-size={heap}"
