"""What the executor makes of its configuration before it serves. Each raises StartError with one clear line."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from services.executor.assertions.probe import assert_profile
from services.executor.config import ExecutorConfig
from services.executor.egress.config import DoorsConfig
from services.executor.egress.package_rules import (
    NO_POLICY,
    InvalidPackagePolicy,
    PackagePolicy,
    read_file,
    read_package_policy,
)
from services.executor.egress.policy import Ceiling
from services.executor.egress.public_urls import public_urls
from services.executor.egress.registries import InvalidRegistries, load_registries
from services.executor.errors import ExecutorError
from services.executor.images import DEFAULT_NAME, Image, Images
from services.executor.profile import Limits, Profile
from services.executor.quota import QuotaChoice, QuotaRefusedError, choose_quota
from services.executor.runtime.port import Quota, Runtime
from services.executor.sandboxes import Settings
from services.executor.space import HostSpace
from services.rpc.config import StartError

_LOG = structlog.get_logger()


async def take_storage(config: ExecutorConfig, runtime: Runtime) -> tuple[QuotaChoice, HostSpace]:
    """How workspaces are bounded here, and the file systems that they and the state need room on."""
    try:
        await runtime.check(config.image)
        quota = await choose_quota(config.workspace_quota, runtime, config.image)
        return quota, HostSpace([config.state_directory, *await runtime.directories()], config.low_water)
    except (ExecutorError, QuotaRefusedError) as error:
        raise StartError(str(error)) from error


def granted(limits: Limits, quota: QuotaChoice) -> Limits:
    """A limit that nothing enforces is not granted."""
    return replace(limits, disk_bytes=0) if quota.quota is Quota.NONE else limits


async def assert_profile_holds(config: ExecutorConfig, profile: Profile, runtime: Runtime, limits: Limits) -> Images:
    """Untrusted code runs only behind what was seen to hold, on this machine, with this engine and in each image."""
    await _check_recipes(config, runtime)
    seen: dict[str, Mapping[str, str]] = {}
    for name, reference in {DEFAULT_NAME: config.image, **config.images}.items():
        if reference in seen:
            continue
        begin = time.monotonic()
        try:
            asserted = await assert_profile(
                runtime, profile, image=reference, limits=limits, run_directory=config.run_directory
            )
        except ExecutorError as error:
            raise StartError(_of_image(name, reference, str(error))) from error
        seen[reference] = asserted.toolchains
        seconds = round(time.monotonic() - begin, 2)
        _LOG.info("the profile holds", image=name, rows=len(asserted.rows), seconds=seconds)
    default = Image(name=DEFAULT_NAME, reference=config.image, toolchains=seen[config.image])
    others = [Image(name=name, reference=found, toolchains=seen[found]) for name, found in config.images.items()]
    return Images(default, others)


async def _check_recipes(config: ExecutorConfig, runtime: Runtime) -> None:
    """A named image is of the same recipe as the default: what is asserted is not all that sandboxes rely on."""
    if not config.images:
        return
    try:
        wanted = await runtime.recipe(config.image)
    except ExecutorError as error:
        raise StartError(str(error)) from error
    for name, reference in config.images.items():
        try:
            found = await runtime.recipe(reference)
        except ExecutorError as error:
            raise StartError(_of_image(name, reference, str(error))) from error
        if not found or found != wanted:
            what = f"is of recipe {found}" if found else "says of no recipe that it was built from it"
            advice = f"QILA_SANDBOX_IMAGE is of {wanted or 'none'}; build it with this version's 'scripts/image'"
            raise StartError(_of_image(name, reference, f"it {what}, {advice}"))


def _of_image(name: str, reference: str, error: str) -> str:
    return error if name == DEFAULT_NAME else f"QILA_IMAGES: {name}={reference}: {error}"


def take_package_policy(config: ExecutorConfig) -> PackagePolicy:
    """The policy as it is now: the doors, whenever they start, get the copy that was checked here and counts in every
    fingerprint. A changed file takes effect when the executor is started again.
    """  # noqa: D205 - one sentence after another
    if config.package_policy is None:
        return NO_POLICY
    try:
        content = read_file(config.package_policy)
        policy = read_package_policy(content, path=config.package_policy)
    except InvalidPackagePolicy as error:
        raise StartError(f"QILA_PACKAGE_POLICY={error}") from error
    temporary = _policy_copy(config).with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.rename(_policy_copy(config))
    return policy


def doors_config(config: ExecutorConfig) -> DoorsConfig:
    """Makes the mirror's cache directory, which is the doors' alone: whatever is in it, root never reads."""
    cache = None
    if config.mirror_cache_bytes:
        cache = config.state_directory / "mirror"
        cache.mkdir(mode=0o700, exist_ok=True)
        os.chown(cache, config.doors_uid, config.doors_uid, follow_symlinks=False)
    return DoorsConfig(
        uid=config.doors_uid,
        gid=config.doors_uid,
        cache_directory=cache,
        cache_bytes=config.mirror_cache_bytes,
        connect_hosts=config.connect_hosts,
        connect_registries=config.connect_registries,
        package_policy=None if config.package_policy is None else _policy_copy(config),
        traffic=config.traffic,
    )


def settings(config: ExecutorConfig, images: Images, package_policy: PackagePolicy) -> Settings:
    """Where and how sandboxes live."""
    return Settings(
        images=images,
        state_directory=config.state_directory,
        run_directory=config.run_directory,
        max_sandboxes=config.max_sandboxes,
        idle_stop_s=config.idle_stop_s,
        ceiling=Ceiling(opening=config.egress, hosts=frozenset(config.connect_hosts)),
        package_policy=package_policy.digest,
        registry_urls=_registry_urls(),
    )


def _registry_urls() -> Mapping[str, str]:
    try:
        return public_urls(load_registries())
    except InvalidRegistries as error:
        raise StartError(str(error)) from error


def _policy_copy(config: ExecutorConfig) -> Path:
    return config.state_directory / "package-policy.toml"
