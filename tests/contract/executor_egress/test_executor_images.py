"""Which image a sandbox is made from: one that the operator names, kept for good, and nothing that a client spells."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qila.executor.v1 import executor_pb2 as pb
from services.executor.egress.policy import Ceiling
from services.executor.errors import ImageNotAllowedError
from services.executor.images import DEFAULT_NAME, Image, Images
from services.executor.runtime.port import SandboxSpec
from services.rpc.errors import ErrorCode, QilaError

from .world import LIMITS, ExecutorWorld, served

DEFAULT = Image(name=DEFAULT_NAME, reference="image", toolchains={"go": "1.27.3"})
OLDER = Image(name="go1.26", reference="older", toolchains={"go": "1.26.6"})


@pytest.fixture
async def world() -> AsyncIterator[ExecutorWorld]:
    # Sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="qila-") as directory:
        made = ExecutorWorld(directory=Path(directory), ceiling=Ceiling(), images=Images(DEFAULT, [OLDER]))
        await made.start()
        yield made
        await made.close()


async def test_a_client_sees_the_images_and_chooses_by_name(world: ExecutorWorld) -> None:
    async with served(world) as port:
        listed = [(image.name, image.is_default, dict(image.toolchains)) for image in await port.list_images()]
        assert listed == [("default", True, {"go": "1.27.3"}), ("go1.26", False, {"go": "1.26.6"})]
        for asked, name, reference in (
            ("", "default", "image"),
            ("default", "default", "image"),
            ("go1.26", "go1.26", "older"),
        ):
            made = await port.create_sandbox(pb.CreateSandboxRequest(image=asked))
            assert (made.image_name, made.image) == (name, reference)
            assert spec_of(world, made.id).image == reference


@pytest.mark.parametrize(
    "asked",
    [
        "debian:latest", "image", "older", "qila-sandbox:go", "../x", "go1.26@sha256:" + "0" * 64, "sha256:" + "0" * 64,
        "GO1.26", " go1.26", "go1.26\0", "go1.26/../default", "x" * 100_000,
    ],
)  # fmt: skip
async def test_attack_a_client_spells_an_image_reference(world: ExecutorWorld, asked: str) -> None:
    async with served(world) as port:
        with pytest.raises(QilaError) as refused:
            await port.create_sandbox(pb.CreateSandboxRequest(image=asked))
    assert (refused.value.code, refused.value.reason) == (ErrorCode.INVALID_ARGUMENT, "IMAGE_UNKNOWN")
    assert refused.value.message.endswith("it has default, go1.26")
    assert len(refused.value.message) < 300
    assert list(await world.runtime.list()) == []


async def test_a_sandbox_keeps_its_image_over_restarts(world: ExecutorWorld) -> None:
    sandbox_id = (await world.sandboxes.create(LIMITS, image_name="go1.26")).record.id
    await world.restart()
    assert world.sandboxes.find(sandbox_id).record.image_name == "go1.26"
    await world.runtime.remove_container(sandbox_id)
    await world.restart()
    await world.sandboxes.ready(sandbox_id)
    assert (spec_of(world, sandbox_id).image, spec_of(world, sandbox_id).image_name) == ("older", "go1.26")


async def test_labels_are_believed_before_the_record(world: ExecutorWorld) -> None:
    sandbox = await world.sandboxes.create(LIMITS, image_name="go1.26")
    record = sandbox.directory / "sandbox.json"
    record.write_text(record.read_text().replace('"go1.26"', '"default"'))
    await world.restart()
    assert world.sandboxes.find(sandbox.record.id).record.image_name == "go1.26"


async def test_an_image_that_is_allowed_no_longer_starts_nothing(world: ExecutorWorld) -> None:
    sandbox_id = (await world.sandboxes.create(LIMITS, image_name="go1.26")).record.id
    other = (await world.sandboxes.create(LIMITS)).record.id
    world.images = Images(DEFAULT)
    await world.restart()
    assert not await world.runtime.is_running(sandbox_id)
    assert await world.runtime.is_running(other)
    async with served(world) as port:
        with pytest.raises(QilaError) as refused:
            await port.survey(sandbox_id)
        assert (refused.value.code, refused.value.reason) == (ErrorCode.FAILED_PRECONDITION, "IMAGE_NOT_ALLOWED")
        assert "put it back into QILA_IMAGES" in refused.value.message
        assert (await port.sandbox(sandbox_id)).image_name == "go1.26"
    assert not await world.runtime.is_running(sandbox_id)
    world.images = Images(DEFAULT, [OLDER])
    await world.restart()
    await world.sandboxes.ready(sandbox_id)
    assert await world.runtime.is_running(sandbox_id)


async def test_a_sandbox_of_an_image_that_is_allowed_no_longer_can_be_removed(world: ExecutorWorld) -> None:
    sandbox_id = (await world.sandboxes.create(LIMITS, image_name="go1.26")).record.id
    world.images = Images(DEFAULT)
    await world.restart()
    with pytest.raises(ImageNotAllowedError):
        await world.sandboxes.ready(sandbox_id)
    await world.sandboxes.remove(sandbox_id)
    assert await world.runtime.list() == []


async def test_a_name_that_stands_for_another_image_now_leads_there(world: ExecutorWorld) -> None:
    world.images = Images(DEFAULT, [Image(name="go1.26", reference="of an earlier version")])
    await world.restart()
    world.runtime.images.add("of an earlier version")
    sandbox_id = (await world.sandboxes.create(LIMITS, image_name="go1.26")).record.id
    await world.runtime.remove_container(sandbox_id)
    world.runtime.images.discard("of an earlier version")
    world.images = Images(DEFAULT, [OLDER])
    await world.restart()
    await world.sandboxes.ready(sandbox_id)
    assert spec_of(world, sandbox_id).image == "older"


def spec_of(world: ExecutorWorld, sandbox_id: str) -> SandboxSpec:
    return world.runtime.containers[sandbox_id]
