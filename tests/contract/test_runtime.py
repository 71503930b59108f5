"""One behaviour suite for every implementation of the runtime port."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from services.executor.errors import EngineError, ImageMissingError
from services.executor.ids import mint_sandbox_id
from services.executor.profile import Limits, load_profile
from services.executor.runtime.docker import DockerRuntime
from services.executor.runtime.fake import FakeRuntime
from services.executor.runtime.images import WorkspaceImages
from services.executor.runtime.port import Quota, Runtime, SandboxSpec

LIMITS = Limits(cpu_millis=500, memory_bytes=256 << 20, pids=64, disk_bytes=64 << 20)


@dataclass
class Subject:
    runtime: Runtime
    other_installation: Runtime
    image: str
    directory: Path

    def spec(self, *, image: str | None = None) -> SandboxSpec:
        return SandboxSpec(
            sandbox_id=mint_sandbox_id(), image=image or self.image, limits=LIMITS, socket_directory=self.directory
        )


def docker_runtime(directory: Path) -> DockerRuntime:
    images = WorkspaceImages(directory=directory / "workspaces", links=directory / "loop", max_inodes=10_000)
    return DockerRuntime(instance=f"test-{secrets.token_hex(4)}", profile=load_profile(), images=images)


@pytest.fixture(
    params=[
        "fake",
        pytest.param("docker with plain volumes", marks=pytest.mark.docker),
        pytest.param("docker with image files", marks=pytest.mark.docker),
    ]
)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    with tempfile.TemporaryDirectory(prefix="qila-") as name:
        directory = Path(name)
        if request.param == "fake":
            image = "an-image"
            runtime: Runtime = FakeRuntime(images=[image], recipes={image: "recipe"})
            other: Runtime = FakeRuntime(images=[image])
        else:
            image = request.getfixturevalue("sandbox_image")
            runtime, other = docker_runtime(directory / "one"), docker_runtime(directory / "other")
        if request.param == "docker with image files":
            assert await runtime.use_quota(Quota.LOOP, image) == ""
        yield Subject(runtime, other, image, directory)
        for status in await runtime.list():
            await runtime.remove(status.sandbox_id)
    await runtime.close()
    await other.close()


async def test_a_sandbox_is_created_stopped_and_removed(subject: Subject) -> None:
    spec = subject.spec()
    await subject.runtime.create(spec)
    (status,) = await subject.runtime.list()
    assert (status.sandbox_id, status.has_volume, status.has_container, status.running) == (
        spec.sandbox_id,
        True,
        True,
        False,
    )
    assert status.create_time is not None
    await subject.runtime.start(spec.sandbox_id)
    assert await subject.runtime.is_running(spec.sandbox_id)
    await subject.runtime.kill(spec.sandbox_id)
    assert not await subject.runtime.is_running(spec.sandbox_id)
    await subject.runtime.remove(spec.sandbox_id)
    assert await subject.runtime.list() == []


async def test_what_is_done_twice_is_done(subject: Subject) -> None:
    spec = subject.spec()
    for _ in range(2):
        await subject.runtime.create(spec)
    for _ in range(2):
        await subject.runtime.start(spec.sandbox_id)
    assert len(await subject.runtime.list()) == 1
    for _ in range(2):
        await subject.runtime.kill(spec.sandbox_id)
    for _ in range(2):
        await subject.runtime.remove(spec.sandbox_id)
    assert await subject.runtime.list() == []


async def test_the_volume_outlives_the_container(subject: Subject) -> None:
    spec = subject.spec()
    await subject.runtime.create(spec)
    await subject.runtime.remove_container(spec.sandbox_id)
    (status,) = await subject.runtime.list()
    assert (status.has_volume, status.has_container) == (True, False)
    await subject.runtime.create(spec)
    (again,) = await subject.runtime.list()
    assert again.has_container
    assert again.create_time == status.create_time


async def test_what_is_tidied_away_is_no_workspace(subject: Subject) -> None:
    spec = subject.spec()
    await subject.runtime.create(spec)
    await subject.runtime.start(spec.sandbox_id)
    await subject.runtime.tidy()
    assert await subject.runtime.is_running(spec.sandbox_id)
    await subject.runtime.remove_container(spec.sandbox_id)
    await subject.runtime.tidy()
    (status,) = await subject.runtime.list()
    assert status.has_volume
    await subject.runtime.create(spec)
    await subject.runtime.start(spec.sandbox_id)
    assert await subject.runtime.is_running(spec.sandbox_id)


async def test_a_quota_that_holds_needs_no_reason(subject: Subject) -> None:
    assert await subject.runtime.use_quota(Quota.NONE, subject.image) == ""


async def test_an_installation_sees_only_its_own(subject: Subject) -> None:
    await subject.runtime.create(subject.spec())
    assert await subject.other_installation.list() == []


async def test_a_container_that_is_not_there_cannot_start(subject: Subject) -> None:
    with pytest.raises(EngineError):
        await subject.runtime.start(mint_sandbox_id())
    assert not await subject.runtime.is_running(mint_sandbox_id())


async def test_a_missing_image_is_named(subject: Subject) -> None:
    with pytest.raises(ImageMissingError, match="no-such-image"):
        await subject.runtime.check("no-such-image:none")
    with pytest.raises(ImageMissingError, match="make image"):
        await subject.runtime.create(subject.spec(image="no-such-image:none"))
    with pytest.raises(ImageMissingError, match="no-such-image"):
        await subject.runtime.recipe("no-such-image:none")


async def test_an_image_says_which_recipe_it_is_of(subject: Subject) -> None:
    expected = subject.image.partition(":")[2] or "recipe"
    assert await subject.runtime.recipe(subject.image) == expected


async def test_labels_tell_the_image_of_a_sandbox(subject: Subject) -> None:
    spec = replace(subject.spec(), image_name="go1.26")
    await subject.runtime.create(spec)
    (status,) = await subject.runtime.list()
    assert status.image_name == "go1.26"
    # The workspace knows it too, whatever becomes of the container.
    await subject.runtime.remove_container(spec.sandbox_id)
    (status,) = await subject.runtime.list()
    assert (status.has_container, status.image_name) == (False, "go1.26")
