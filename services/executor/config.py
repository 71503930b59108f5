"""The executor's configuration, from `QILA_*` variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.executor import quota
from services.executor.egress.limits import TrafficLimits
from services.executor.egress.policy import Opening, is_host_name
from services.executor.ids import random_text
from services.executor.images import DEFAULT_NAME, MAX_IMAGES, NAME
from services.executor.profile import Limits, load_profile
from services.executor.space import LowWater
from services.rpc.config import ConfigError, Environment

INSTANCE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")
# A socket's whole path must stay below 100 bytes: "/sb/", the sandbox id and "/control.sock" take 46.
MAX_RUN_DIRECTORY_BYTES = 52
_OPENINGS: Mapping[str, Opening] = {"registries": "registries", "install": "install", "none": "none"}
IMAGE_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}\Z")
DEFAULT_LOW_WATER_BYTES = 2 << 30
DEFAULT_MAX_INODES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ExecutorConfig:
    """What the executor needs to know. Times in seconds.

    `egress` is the most that any sandbox's policy can open, `connect_hosts` are the hosts that one can name. `image` is
    the default's reference, `images` are those of the others by name.
    """

    state_directory: Path
    run_directory: Path
    instance: str
    image: str
    images: Mapping[str, str]
    runtime: str | None
    default_limits: Limits
    max_sandboxes: int
    idle_stop_s: float
    workspace_quota: str
    workspace_inodes: int
    low_water: LowWater
    doors_uid: int
    mirror_cache_bytes: int
    egress: Opening
    connect_hosts: tuple[str, ...]
    connect_registries: bool
    package_policy: Path | None
    traffic: TrafficLimits
    log_level: str


def read_config(environment: Environment) -> ExecutorConfig:
    """Reads and validates the variables. ConfigError on a bad one."""
    run_directory = environment.run_directory()
    if len(os.fsencode(run_directory)) > MAX_RUN_DIRECTORY_BYTES:
        rule = f"must be at most {MAX_RUN_DIRECTORY_BYTES} bytes: the sandboxes' sockets lie below it"
        raise ConfigError(variable="QILA_RUN_DIR", value=str(run_directory), rule=rule)
    image = environment.text("QILA_SANDBOX_IMAGE")
    if not image:
        rule = "must name the sandbox image; 'scripts/image --tag' prints the name of this version's"
        raise ConfigError(variable="QILA_SANDBOX_IMAGE", value="", rule=rule)
    instance = environment.text("QILA_INSTANCE")
    if instance and not INSTANCE.match(instance):
        rule = "must be 1 to 32 of [a-z0-9-] and begin with a letter or digit"
        raise ConfigError(variable="QILA_INSTANCE", value=instance, rule=rule)
    profile = load_profile().limits
    low_size, low_percent = environment.size_or_percent(
        "QILA_DISK_LOW_WATER", DEFAULT_LOW_WATER_BYTES, maximum=1 << 50, max_percent=50
    )
    return ExecutorConfig(
        state_directory=environment.state_directory(),
        run_directory=run_directory,
        instance=instance,
        image=image,
        images=_images(environment),
        runtime=environment.text("QILA_RUNTIME") or None,
        default_limits=Limits(
            cpu_millis=environment.integer("QILA_CPU_MILLIS", profile.cpu_millis, minimum=10, maximum=64_000),
            memory_bytes=environment.size("QILA_MEMORY", profile.memory_bytes, minimum=64 << 20, maximum=1 << 40),
            pids=environment.integer("QILA_PIDS", profile.pids, minimum=16, maximum=32_768),
            disk_bytes=environment.size("QILA_WORKSPACE_SIZE", profile.disk_bytes, minimum=64 << 20, maximum=1 << 40),
        ),
        max_sandboxes=environment.integer("QILA_MAX_SANDBOXES", 100, minimum=1, maximum=10_000),
        idle_stop_s=environment.seconds("QILA_IDLE_STOP", 600, minimum=1, maximum=86_400 * 7),
        workspace_quota=environment.choice("QILA_WORKSPACE_QUOTA", quota.CHOICES, quota.AUTO),
        workspace_inodes=environment.integer(
            "QILA_WORKSPACE_INODES", DEFAULT_MAX_INODES, minimum=4096, maximum=100_000_000
        ),
        low_water=LowWater(size=low_size, percent=low_percent),
        doors_uid=environment.integer("QILA_DOORS_UID", 65_531, minimum=1, maximum=2_000_000_000),
        mirror_cache_bytes=environment.size("QILA_MIRROR_CACHE_SIZE", 10 << 30, minimum=0, maximum=1 << 50),
        egress=_OPENINGS[environment.choice("QILA_EGRESS", tuple(_OPENINGS), "registries")],
        connect_hosts=_connect_hosts(environment),
        connect_registries=environment.flag("QILA_CONNECT_REGISTRIES", default=False),
        package_policy=_package_policy(environment),
        traffic=TrafficLimits(
            bytes_per_day=environment.size("QILA_EGRESS_BYTES", 0, minimum=0, maximum=1 << 50),
            bytes_per_second=environment.size("QILA_EGRESS_RATE", 0, minimum=0, maximum=1 << 40),
        ),
        log_level=environment.log_level(),
    )


def _images(environment: Environment) -> Mapping[str, str]:
    value = environment.text("QILA_IMAGES")
    pairs = [tuple(pair.strip().partition("=")) for pair in value.split(",")] if value else []
    images = {name: reference for name, _, reference in pairs}
    if not all(NAME.match(name) and IMAGE_REFERENCE.match(reference) for name, reference in images.items()):
        rule = (
            "must be NAME=IMAGE with commas between, such as go1.26=qila-sandbox:go1.26; a name is 1 to 64 of "
            "[a-z0-9._-] and begins with a letter or digit"
        )
    elif len(images) < len(pairs) or DEFAULT_NAME in images:
        rule = f"must name each image once, and none {DEFAULT_NAME!r}: that is QILA_SANDBOX_IMAGE"
    elif len(images) > MAX_IMAGES:
        rule = f"must name at most {MAX_IMAGES} images"
    else:
        return images
    raise ConfigError(variable="QILA_IMAGES", value=value, rule=rule)


def _connect_hosts(environment: Environment) -> tuple[str, ...]:
    value = environment.text("QILA_CONNECT_HOSTS")
    hosts = tuple(host.strip() for host in value.split(",")) if value else ()
    if not all(is_host_name(host) for host in hosts):
        rule = "must be exact lower-case host names with commas between, such as plugins.example.org,data.example.org"
        raise ConfigError(variable="QILA_CONNECT_HOSTS", value=value, rule=rule)
    return hosts


def _package_policy(environment: Environment) -> Path | None:
    value = environment.text("QILA_PACKAGE_POLICY")
    if value and not Path(value).is_absolute():
        raise ConfigError(variable="QILA_PACKAGE_POLICY", value=value, rule="must be an absolute path")
    return Path(value) if value else None


def instance_of(config: ExecutorConfig) -> str:
    """The installation's name on everything it makes: the configured one, or one minted once and kept."""
    if config.instance:
        return config.instance
    path = config.state_directory / "instance"
    if not path.exists():
        temporary = path.with_suffix(".tmp")
        temporary.write_text(random_text(10), encoding="ascii")
        temporary.rename(path)
    return path.read_text(encoding="ascii")
