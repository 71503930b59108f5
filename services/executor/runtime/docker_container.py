"""A sandbox's container as the Docker Engine is asked for it: the profile, row by row."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from docker.types import LogConfig, Mount, Ulimit

from services.executor.profile import Profile
from services.executor.runtime.port import Quota, SandboxSpec

CPU_PERIOD_US = 100_000
# Every name that is not in a file beside it is asked of a nameserver, and there is none.
LOOPBACK = "127.0.0.1"


def container_settings(
    api: Any,
    profile: Profile,
    spec: SandboxSpec,
    *,
    name: str,
    labels: Mapping[str, str],
    runtime: str | None,
    quota: Quota = Quota.NONE,
) -> dict[str, Any]:
    """Arguments of the package's `create_container`; volume and container share the name."""
    return {
        "image": spec.image,
        "name": name,
        "user": profile.user,
        "hostname": profile.hostname,
        "labels": dict(labels),
        # Else the package hands on what the operator's own Docker settings say of proxies.
        "use_config_proxy": False,
        "host_config": _host_config(api, profile, spec, name=name, runtime=runtime, quota=quota),
    }


def _host_config(
    api: Any, profile: Profile, spec: SandboxSpec, *, name: str, runtime: str | None, quota: Quota
) -> dict[str, Any]:
    host_config: dict[str, Any] = api.create_host_config(
        network_mode=profile.network,
        dns=list(profile.nameservers),
        dns_search=["."],  # else the host's
        extra_hosts={profile.hostname: LOOPBACK},
        read_only=profile.read_only_root,
        cap_drop=list(profile.cap_drop),
        cap_add=list(profile.cap_add),
        security_opt=[*_security_options(profile)],
        sysctls=dict(profile.sysctls),
        log_config=LogConfig(type=profile.log_driver),
        ipc_mode=profile.ipc,
        oom_score_adj=profile.oom_score_adj,
        mem_limit=spec.limits.memory_bytes,
        memswap_limit=spec.limits.memory_bytes,
        cpu_period=CPU_PERIOD_US,
        cpu_quota=spec.limits.cpu_millis * CPU_PERIOD_US // 1000,
        pids_limit=spec.limits.pids,
        ulimits=[
            Ulimit(name="nofile", soft=profile.nofile, hard=profile.nofile),
            Ulimit(name="core", soft=profile.core, hard=profile.core),
        ],
        tmpfs=dict(profile.tmpfs),
        mounts=[
            # An image file is laid out already; the engine would mount it just to see that.
            Mount(target=profile.workspace, source=name, type="volume", no_copy=quota is Quota.LOOP),
            Mount(target=profile.sockets, source=str(spec.socket_directory), type="bind", read_only=True),
        ],
        runtime=runtime,
        restart_policy={"Name": "no"},
    )
    # The package has no arguments for these two.
    host_config["MaskedPaths"] = [*masked_paths(profile.masked)]
    host_config["ReadonlyPaths"] = list(profile.read_only)
    return host_config


def masked_paths(patterns: Sequence[str]) -> Iterator[str]:
    """The profile's paths, with a `*` for what this machine has: the engine takes no patterns."""
    for pattern in patterns:
        if "*" in pattern:
            yield from sorted(glob.glob(pattern))  # noqa: PTH207 - texts of the container, not paths of ours
        else:
            yield pattern


def _security_options(profile: Profile) -> Iterator[str]:
    if profile.no_new_privileges:
        yield "no-new-privileges"
    yield f"seccomp={profile.seccomp}"
