"""Workspaces in image files, in real containers of the shipped image: bounds, space, and what a crash leaves."""

from __future__ import annotations

import secrets
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.executor.errors import EngineError, WorkspaceError, WorkspaceMissingError
from services.executor.ids import mint_sandbox_id
from services.executor.profile import Limits, load_profile
from services.executor.runtime import file_systems, loop_devices
from services.executor.runtime.docker import DockerRuntime
from services.executor.runtime.file_systems import read_skeleton
from services.executor.runtime.images import WorkspaceImages
from services.executor.runtime.port import Quota, SandboxSpec

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
SIZE = 64 << 20
MAX_INODES = 1000
# What a file system of this size takes for itself on the host.
OWN_BYTES = 8 << 20


@dataclass
class Box:
    """One installation; `images` are its files."""

    runtime: DockerRuntime
    images: WorkspaceImages
    instance: str
    image: str
    directory: Path

    def spec(self, size: int = SIZE) -> SandboxSpec:
        limits = Limits(cpu_millis=1000, memory_bytes=256 << 20, pids=64, disk_bytes=size)
        return SandboxSpec(
            sandbox_id=mint_sandbox_id(), image=self.image, limits=limits, socket_directory=self.directory
        )

    async def started(self, size: int = SIZE) -> str:
        spec = self.spec(size)
        await self.runtime.create(spec)
        await self.runtime.start(spec.sandbox_id)
        return spec.sandbox_id

    def run(self, sandbox_id: str, script: str, user: str = "1000:1000") -> subprocess.CompletedProcess[str]:
        name = f"qila-{self.instance}-{sandbox_id}"
        return docker("exec", "--user", user, name, "sh", "-c", script)

    def on_host(self, sandbox_id: str) -> int:
        """Bytes that the workspace takes of the host's disk."""
        return self.images.path_of(sandbox_id).stat().st_blocks * 512

    def volumes(self) -> list[str]:
        return docker("volume", "ls", "--quiet", "--filter", f"name=qila-{self.instance}-").stdout.split()


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, errors="replace", check=False, timeout=100
    )


def tool(*arguments: str | Path) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def attach(file: Path) -> str:
    return tool("losetup", "--find", "--show", file)


def until(holds: Callable[[], bool], step: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        step()


@pytest.fixture
async def box(sandbox_image: str) -> AsyncIterator[Box]:
    with tempfile.TemporaryDirectory(prefix="qila-") as name:
        directory = Path(name)
        images = WorkspaceImages(directory=directory / "images", links=directory / "loop", max_inodes=MAX_INODES)
        instance = f"test-{secrets.token_hex(4)}"
        runtime = DockerRuntime(instance=instance, profile=load_profile(), images=images)
        assert await runtime.use_quota(Quota.LOOP, sandbox_image) == ""
        made = Box(runtime, images, instance, sandbox_image, directory)
        yield made
        for status in await runtime.list():
            await runtime.remove(status.sandbox_id)
        await runtime.tidy()
        await runtime.close()
        assert (made.volumes(), loop_devices.attached(directory)) == ([], {})


async def test_a_program_cannot_write_more_bytes_than_its_quota_and_can_remove_what_it_wrote(box: Box) -> None:
    sandbox_id = await box.started()
    full = box.run(sandbox_id, "head -c 200m /dev/zero >big")
    assert full.returncode != 0
    assert "No space left on device" in full.stderr
    assert 40 << 20 < box.on_host(sandbox_id) <= SIZE
    # A block or two may come free when what was written settles.
    assert box.run(sandbox_id, "head -c 8m /dev/zero >more").returncode != 0
    assert box.run(sandbox_id, "rm big && echo more >more && cat more").stdout == "more\n"


async def test_a_program_cannot_make_more_files_than_its_quota(box: Box) -> None:
    sandbox_id = await box.started()
    script = "i=0; while true >f$i; do i=$((i+1)); done 2>/dev/null; echo $i"
    # The tables are made of whole blocks.
    assert 0.9 * MAX_INODES < int(box.run(sandbox_id, script).stdout) < 1.1 * MAX_INODES
    flood = box.run(sandbox_id, "mkdir another")
    assert "No space left on device" in flood.stderr
    assert box.run(sandbox_id, "rm f1 f2 && mkdir another").returncode == 0


async def test_a_sparse_file_bomb_takes_no_space_of_the_host(box: Box) -> None:
    sandbox_id = await box.started()
    script = "for i in 1 2 3 4; do truncate -s 4T bomb$i; done; sync; du -sk --apparent-size bomb1"
    assert box.run(sandbox_id, script).stdout.split()[0] == str(4 << 30)
    assert box.on_host(sandbox_id) < OWN_BYTES


async def test_a_new_workspace_is_what_a_plain_volume_would_be(box: Box) -> None:
    sandbox_id = await box.started()
    await box.runtime.use_quota(Quota.NONE, box.image)
    plain = box.spec()
    await box.runtime.create(plain)
    await box.runtime.start(plain.sandbox_id)
    script = "cd /sandbox; find . -exec stat -c '%u:%g %a %F %n' {} + | sort -k4"
    listing = box.run(sandbox_id, script, user="1001:1001").stdout
    assert listing == box.run(plain.sandbox_id, script, user="1001:1001").stdout
    assert len(listing.splitlines()) == len(read_skeleton())
    mounts = box.run(sandbox_id, "grep ' /sandbox ' /proc/mounts").stdout.split()
    assert {"nosuid", "nodev", "discard", "errors=remount-ro"} <= set(mounts[3].split(","))


async def test_a_new_file_system_has_no_fault(box: Box) -> None:
    # The second of a size is not made by the tools.
    for name in ("first", "second", "third"):
        box.images.make(name, 10 << 30)
        assert "Pass 5" in tool("e2fsck", "-fn", box.images.path_of(name))
        assert box.on_host(name) < OWN_BYTES
        box.images.remove(name)
    assert len(box.images._file_systems._kept) == 2


async def test_many_sizes_of_workspaces_take_little_memory(box: Box) -> None:
    for number in range(20):
        box.images.make(str(number), SIZE + number * (1 << 20))
        box.images.remove(str(number))
    kept = box.images._file_systems._kept
    assert len(kept) == 8
    assert sum(len(data) for blocks in kept.values() for data in blocks.values()) < 8 << 20


async def test_space_of_deleted_files_comes_back_to_the_host(box: Box) -> None:
    sandbox_id = await box.started()
    assert box.run(sandbox_id, "head -c 40m /dev/urandom >big; sync").returncode == 0
    assert box.on_host(sandbox_id) > 40 << 20
    assert box.run(sandbox_id, "rm big").returncode == 0
    until(lambda: box.on_host(sandbox_id) < OWN_BYTES, lambda: box.run(sandbox_id, "sync"))


async def test_removing_a_running_sandbox_leaves_nothing_of_it(box: Box) -> None:
    sandbox_id = await box.started()
    box.run(sandbox_id, "head -c 40m /dev/urandom >big; sync")
    await box.runtime.remove(sandbox_id)
    assert list(box.images.directory.iterdir()) == []
    assert loop_devices.attached(box.directory) == {}
    assert box.volumes() == []


async def test_a_stopped_sandbox_holds_no_device_and_starts_with_its_files(box: Box) -> None:
    sandbox_id = await box.started()
    box.run(sandbox_id, "echo kept >file")
    for _ in range(3):
        assert len(loop_devices.attached(box.directory)) == 1
        await box.runtime.kill(sandbox_id)
        await box.runtime.start(sandbox_id)
        assert box.run(sandbox_id, "cat file").stdout == "kept\n"
    await box.runtime.kill(sandbox_id)
    loop_devices.wait_until_free(box.images.path_of(sandbox_id))
    assert loop_devices.attached(box.directory) == {}


async def test_nothing_but_a_start_can_mount_a_workspace(box: Box) -> None:
    # After a crash or a reboot a device's name may stand for another sandbox's files.
    sandbox_id = await box.started()
    assert not box.images.link_of(sandbox_id).is_symlink()
    await box.runtime.kill(sandbox_id)
    loop_devices.wait_until_free(box.images.path_of(sandbox_id))
    assert docker("start", f"qila-{box.instance}-{sandbox_id}").returncode != 0


async def test_a_crash_before_the_start_leaves_nothing_after_tidying(box: Box) -> None:
    spec = box.spec()
    await box.runtime.create(spec)
    image = box.images.path_of(spec.sandbox_id)
    (box.directory / "loop").mkdir(exist_ok=True)
    box.images.link_of(spec.sandbox_id).symlink_to(attach(image))
    box.images.path_of(mint_sandbox_id()).with_suffix(".new").write_bytes(b"half made")
    stranger = box.directory / "stranger"
    stranger.write_bytes(bytes(1 << 20))
    foreign = attach(stranger)
    try:
        await box.runtime.tidy()
        assert loop_devices.attached(box.directory) == {foreign: stranger}
    finally:
        loop_devices.detach(foreign, stranger)
    assert [*box.images.directory.iterdir(), *(box.directory / "loop").iterdir()] == [image]
    await box.runtime.start(spec.sandbox_id)


async def test_a_crash_between_image_and_volume_is_completed_with_the_same_files(box: Box) -> None:
    spec = box.spec()
    box.images.make(spec.sandbox_id, SIZE)
    before = box.images.path_of(spec.sandbox_id).stat().st_ino
    (status,) = await box.runtime.list()
    assert (status.sandbox_id, status.has_volume, status.has_container) == (spec.sandbox_id, True, False)
    await box.runtime.create(spec)
    await box.runtime.start(spec.sandbox_id)
    assert box.images.path_of(spec.sandbox_id).stat().st_ino == before
    assert list(loop_devices.attached(box.directory).values()) == [box.images.path_of(spec.sandbox_id)]


async def test_an_image_taken_away_by_hand_is_named_and_what_is_left_can_be_removed(box: Box) -> None:
    spec = box.spec()
    await box.runtime.create(spec)
    box.images.path_of(spec.sandbox_id).unlink()
    with pytest.raises(WorkspaceMissingError, match=rf"{spec.sandbox_id}.*was removed from the host"):
        await box.runtime.create(spec)
    with pytest.raises(EngineError):
        await box.runtime.start(spec.sandbox_id)
    (status,) = await box.runtime.list()
    assert (status.has_volume, status.has_container) == (False, True)
    await box.runtime.remove_container(spec.sandbox_id)
    assert box.volumes() != []
    await box.runtime.tidy()
    assert box.volumes() == []


async def test_a_workspace_is_mounted_from_where_the_links_are_now(box: Box) -> None:
    spec = box.spec()
    await box.runtime.create(spec)
    await box.runtime.start(spec.sandbox_id)
    box.run(spec.sandbox_id, "echo kept >file")
    await box.runtime.kill(spec.sandbox_id)
    images = WorkspaceImages(directory=box.images.directory, links=box.directory / "moved", max_inodes=MAX_INODES)
    again = DockerRuntime(instance=box.instance, profile=load_profile(), images=images)
    await again.create(spec)
    await again.start(spec.sandbox_id)
    assert box.run(spec.sandbox_id, "cat file").stdout == "kept\n"
    await again.close()


async def test_a_file_system_that_met_errors_is_mended_before_it_is_mounted(box: Box) -> None:
    spec = box.spec()
    await box.runtime.create(spec)
    image = box.images.path_of(spec.sandbox_id)
    tool("debugfs", "-w", "-R", "set_super_value state 2", image)
    await box.runtime.start(spec.sandbox_id)
    assert "Filesystem state:         clean\n" in tool("dumpe2fs", "-h", image)


async def test_an_image_that_holds_something_else_is_named(box: Box) -> None:
    spec = box.spec()
    await box.runtime.create(spec)
    box.images.path_of(spec.sandbox_id).write_bytes(bytes(1 << 20))
    with pytest.raises(WorkspaceError, match="holds no file system"):
        await box.runtime.start(spec.sandbox_id)


async def test_a_workspace_that_is_mounted_elsewhere_is_not_attached_twice(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_devices, "_RELEASE_S", 0.1)
    spec = box.spec()
    await box.runtime.create(spec)
    image = box.images.path_of(spec.sandbox_id)
    device = attach(image)
    try:
        with pytest.raises(WorkspaceError, match="still mounted"):
            await box.runtime.start(spec.sandbox_id)
        assert loop_devices.attached(box.directory) == {device: image}
    finally:
        loop_devices.detach(device, image)


def test_a_device_that_became_another_files_is_left_alone(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    device = attach(tmp_path / "theirs")
    loop_devices.detach(device, tmp_path / "ours")
    assert loop_devices.attached(tmp_path) == {device: tmp_path / "theirs"}
    loop_devices.detach(device, tmp_path / "theirs")
    loop_devices.detach(device, tmp_path / "theirs")
    assert loop_devices.attached(tmp_path) == {}


async def test_a_quota_that_does_not_bite_is_not_used(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    make = box.images.make
    with monkeypatch.context() as patched:
        patched.setattr(box.images, "make", lambda name, _size: make(name, 256 << 20))
        assert await box.runtime.use_quota(Quota.LOOP, box.image) == "a program wrote beyond the limit"
    box.images._file_systems._kept.clear()
    monkeypatch.setattr(file_systems, "read_skeleton", lambda: [(0, 0, 0o755, ".")])
    assert await box.runtime.use_quota(Quota.LOOP, box.image) == "a program could not write to it"
    assert (box.volumes(), list(box.images.directory.iterdir())) == ([], [])


async def test_a_missing_tool_is_named_with_its_package(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.executor.runtime.tools._PATH", "/nowhere")
    box.images._file_systems._kept.clear()
    refusal = await box.runtime.use_quota(Quota.LOOP, box.image)
    assert refusal == "mkfs.ext4 is not on this machine; install e2fsprogs"


async def test_the_engines_own_quota_is_tried_and_nothing_is_left_of_it(box: Box) -> None:
    refusal = await box.runtime.use_quota(Quota.ENGINE, box.image)
    assert "quota" in refusal or not refusal
    assert box.volumes() == []


def test_device_nodes_that_a_container_lacks_are_made(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    script = textwrap.dedent(f"""
        from pathlib import Path
        from services.executor.runtime import loop_devices
        assert not list(Path("/dev").glob("loop*"))
        image = Path({str(image)!r})
        device = loop_devices.attach(image)
        assert loop_devices.attached(image.parent) == {{device: image}}
        loop_devices.detach(device, image)
        assert loop_devices.attached(image.parent) == {{}}
    """)
    # A /dev of its own, as a container has it.
    command = 'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9 && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command, sys.executable, script],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


async def test_a_workspace_outlives_a_host_whose_disk_was_full(box: Box) -> None:
    box.images.directory.mkdir(exist_ok=True)
    tool("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", box.images.directory)
    try:
        sandbox_id = await box.started()
        box.run(sandbox_id, "echo kept >file; sync")
        box.run(sandbox_id, "head -c 40m /dev/urandom >big; sync")
        assert box.on_host(sandbox_id) <= 24 << 20
        tool("mount", "-o", "remount,size=128m", box.images.directory)
        await box.runtime.kill(sandbox_id)
        await box.runtime.start(sandbox_id)
        assert box.run(sandbox_id, "rm -f big; echo more >more; sync; cat file more").stdout == "kept\nmore\n"
        await box.runtime.remove(sandbox_id)
    finally:
        tool("umount", box.images.directory)
