"""The profile in real containers: it holds as shipped, is seen to be weaker when it is, and toolchains live with it."""

from __future__ import annotations

import dataclasses
import json
import platform
import secrets
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sandboxd_harness import Sandbox  # type: ignore[import-not-found]  # pytest puts this directory on the path

from services.executor.__main__ import main as serve
from services.executor.assertions.probe import PROBE_ID, assert_profile
from services.executor.config import read_config
from services.executor.errors import ProfileError
from services.executor.ids import mint_sandbox_id
from services.executor.limit_variables import limit_variables
from services.executor.profile import Limits, Profile, load_profile
from services.executor.runtime.docker import DockerRuntime
from services.executor.runtime.images import WorkspaceImages
from services.executor.runtime.port import SandboxSpec
from services.rpc.config import Environment, StartError

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
PROFILE = load_profile()
LIMITS = Limits(cpu_millis=1000, memory_bytes=1 << 30, pids=256)
UNCONFINED = "unconfined"
# In force, and of no use.
WEAK_FILTER = json.dumps(
    {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}],
    }
)
CASES = Path(__file__).resolve().parents[1] / "cases" / "profile"


# None is made: nothing bounds these workspaces.
IMAGES = WorkspaceImages(directory=Path("/nonexistent"), links=Path("/nonexistent"), max_inodes=4096)


@pytest.fixture
def run_directory() -> Iterator[Path]:
    # Sockets below it need a short path.
    with tempfile.TemporaryDirectory(prefix="qp", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
async def instance() -> AsyncIterator[str]:
    """An installation of its own; what is left of it is removed."""
    name = f"test-{secrets.token_hex(4)}"
    yield name
    runtime = DockerRuntime(instance=name, profile=PROFILE, images=IMAGES)
    for status in await runtime.list():
        await runtime.remove(status.sandbox_id)
    await runtime.close()


async def check(instance: str, made: Profile, asserted: Profile, image: str, directory: Path) -> int:
    """Asserts one profile of a container that was made with another; returns how many rows held."""
    runtime = DockerRuntime(instance=instance, profile=made, images=IMAGES)
    try:
        found = await assert_profile(runtime, asserted, image=image, limits=LIMITS, run_directory=directory)
        assert await runtime.list() == []
    finally:
        await runtime.close()
    assert found.toolchains["python"].startswith("3.")
    return len(found.rows)


async def test_the_shipped_profile_holds(instance: str, sandbox_image: str, run_directory: Path) -> None:
    assert await check(instance, PROFILE, PROFILE, sandbox_image, run_directory) > 100


WEAKER: dict[str, dict[str, Any]] = {
    "Seccomp": {"seccomp": UNCONFINED},
    "add_key": {"seccomp": WEAK_FILTER},
    "CapBnd": {"cap_add": ("SETUID", "SETGID", "KILL", "SETPCAP")},
    "NoNewPrivs": {"no_new_privileges": False},
    "mounts": {"read_only_root": False},
    "masked paths": {"masked": ("/proc/kcore",)},
    "space of /dev/shm": {"tmpfs": {"/tmp": PROFILE.tmpfs["/tmp"]}},
    "space of /tmp": {"tmpfs": {**PROFILE.tmpfs, "/tmp": "rw,exec,nosuid,nodev,size=64m,mode=1777"}},
    "read-only paths": {"read_only": ("/proc/irq",)},
    "nameservers": {"nameservers": ("192.0.2.1",)},
    "port 53": {"sysctls": {}},
    "interfaces": {"network": "bridge"},
    "open files (soft, hard)": {"nofile": 1024},
    "hostname": {"hostname": "elsewhere"},
}


@pytest.mark.parametrize("row", WEAKER)
async def test_a_weaker_container_is_seen_and_removed(
    instance: str, sandbox_image: str, run_directory: Path, row: str
) -> None:
    weaker = dataclasses.replace(PROFILE, **WEAKER[row])
    runtime = DockerRuntime(instance=instance, profile=weaker, images=IMAGES)
    with pytest.raises(ProfileError) as caught:
        await assert_profile(runtime, PROFILE, image=sandbox_image, limits=LIMITS, run_directory=run_directory)
    assert await runtime.list() == []
    await runtime.close()
    assert caught.value.row == f"program: {row}"


async def test_the_executor_does_not_serve_behind_a_weaker_profile(
    instance: str, sandbox_image: str, run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weaker = dataclasses.replace(PROFILE, **WEAKER["masked paths"])
    monkeypatch.setattr(
        "services.executor.__main__.DockerRuntime",
        lambda *, instance, profile, images, runtime: DockerRuntime(
            instance=instance, profile=weaker, images=images, runtime=runtime
        ),
    )
    variables = {
        "QILA_STATE_DIR": str(run_directory / "state"),
        "QILA_RUN_DIR": str(run_directory / "run"),
        "QILA_SANDBOX_IMAGE": sandbox_image,
        "QILA_INSTANCE": instance,
    }
    with pytest.raises(StartError, match="the sandbox profile does not hold: program: masked paths: expected empty"):
        await serve(read_config(Environment(variables)))
    assert not (run_directory / "run" / "executor.sock").exists()


async def test_a_container_of_another_profile_is_made_again_unless_it_runs(
    instance: str, sandbox_image: str, run_directory: Path
) -> None:
    spec = SandboxSpec(sandbox_id=mint_sandbox_id(), image=sandbox_image, limits=LIMITS, socket_directory=run_directory)
    older = DockerRuntime(instance=instance, profile=dataclasses.replace(PROFILE, seccomp=UNCONFINED), images=IMAGES)
    newer = DockerRuntime(instance=instance, profile=PROFILE, images=IMAGES)
    await older.create(spec)
    await older.start(spec.sandbox_id)
    await newer.create(spec)
    assert seccomp_of(instance, spec.sandbox_id) == UNCONFINED
    await newer.kill(spec.sandbox_id)
    await newer.create(spec)
    assert seccomp_of(instance, spec.sandbox_id) == PROFILE.seccomp
    made = inspect(instance, spec.sandbox_id)["Id"]
    await newer.create(spec)
    assert inspect(instance, spec.sandbox_id)["Id"] == made
    await older.close()
    await newer.close()


def inspect(instance: str, sandbox_id: str) -> dict[str, Any]:
    command = ["docker", "inspect", f"qila-{instance}-{sandbox_id}"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    (found,) = json.loads(shown.stdout)
    return dict(found)


def seccomp_of(instance: str, sandbox_id: str) -> str:
    options = inspect(instance, sandbox_id)["HostConfig"]["SecurityOpt"]
    return next(str(o) for o in options if o.startswith("seccomp=")).removeprefix("seccomp=")


async def test_the_first_process_gets_no_variable_of_the_services(
    instance: str,
    sandbox_image: str,
    run_directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "config.json").write_text('{"proxies": {"default": {"httpProxy": "http://192.0.2.1:1"}}}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("QILA_SECRET", "1")
    runtime = DockerRuntime(instance=instance, profile=PROFILE, images=IMAGES)
    spec = SandboxSpec(sandbox_id=mint_sandbox_id(), image=sandbox_image, limits=LIMITS, socket_directory=run_directory)
    await runtime.create(spec)
    await runtime.close()
    variables = inspect(instance, spec.sandbox_id)["Config"]["Env"]
    assert {row.partition("=")[0] for row in variables} == {"PATH", "LANG"}


async def test_a_probe_that_a_killed_executor_left_is_replaced(
    instance: str, sandbox_image: str, run_directory: Path
) -> None:
    runtime = DockerRuntime(instance=instance, profile=PROFILE, images=IMAGES)
    left = SandboxSpec(sandbox_id=PROBE_ID, image=sandbox_image, limits=LIMITS, socket_directory=run_directory)
    await runtime.create(left)
    await runtime.start(PROBE_ID)
    await runtime.close()
    assert await check(instance, PROFILE, PROFILE, sandbox_image, run_directory) > 100


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=LIMITS) as made:
        yield made


def output(sandbox: Sandbox, *argv: str, cwd: str = "/sandbox", **env: str) -> str:
    """What a program prints that is told its limits; any other end than a good one fails the test."""
    header, out, err = sandbox.run(*argv, cwd=cwd, env=dict(limit_variables(LIMITS)) | env)
    assert header["end"] == {"kind": "exited", "code": 0}, (header, out.decode(), err.decode())
    return str(out.decode())


CALL = """
import ctypes, errno, os, platform, signal
libc = ctypes.CDLL(None, use_errno=True)
def call(x86_64, aarch64, *arguments):
    number = {"x86_64": x86_64, "aarch64": aarch64}[platform.machine()]
    result = libc.syscall(*[ctypes.c_long(a) for a in (number, *arguments, *[0] * (6 - len(arguments)))])
    return "OK" if result >= 0 else errno.errorcode[ctypes.get_errno()]
def clone(flags):
    number = {"x86_64": 56, "aarch64": 220}[platform.machine()]
    child = libc.syscall(ctypes.c_long(number), ctypes.c_long(flags | signal.SIGCHLD), *[ctypes.c_long(0)] * 4)
    if child == 0:
        os._exit(0)
    return "OK" if child > 0 else errno.errorcode[ctypes.get_errno()]
"""
CLONE_FLAGS = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
# Numbers on x86-64 and arm64, then arguments.
REFUSED = {
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "request_key": (249, 218),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "quotactl": (179, 60),
    "acct": (163, 89),
    "swapon": (167, 224),
    "chroot": (161, 51),
    "syslog": (103, 116, 3),
    "settimeofday": (164, 170),
    "fanotify_init": (300, 262),
    "personality": (135, 92, 0x0008),
    "socketpair(AF_TIPC)": (53, 199, 30, 1),
    "socket(2**32 + AF_INET)": (41, 198, (1 << 32) + 2, 1),
    "socket(AF_INET, SOCK_SEQPACKET)": (41, 198, 2, 5),
    "socket(AF_NETLINK, NETLINK_AUDIT)": (41, 198, 16, 3, 9),
    "socket(AF_SMC)": (41, 198, 43, 1),
    "socket(AF_INET, IPPROTO_UDPLITE)": (41, 198, 2, 2, 136),
}
MISSING = {"io_uring_enter", "io_uring_register"}


def test_no_namespace_can_be_made(sandbox: Sandbox) -> None:
    asked = f"{CALL}\nprint(*[clone(flags) for flags in {[*CLONE_FLAGS.values()]}], clone(0))"
    assert output(sandbox, "python3", "-c", asked).split() == [*["EPERM"] * len(CLONE_FLAGS), "OK"]


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_is_refused(sandbox: Sandbox, name: str) -> None:
    asked = f"{CALL}\nprint(call(*{REFUSED[name]}))"
    assert output(sandbox, "python3", "-c", asked).strip() == ("ENOSYS" if name in MISSING else "EPERM")


def test_a_new_call_that_no_filter_knows_does_not_exist(sandbox: Sandbox) -> None:
    assert output(sandbox, "python3", "-c", f"{CALL}\nprint(call(900, 900))").strip() == "ENOSYS"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the other machine has no such calls")
def test_a_32_bit_call_kills_whoever_makes_it(sandbox: Sandbox) -> None:
    source = 'int main(void) { long r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(20)); return r < 0; }'
    script = f"cd /tmp; echo '{source}' > old.c; gcc -o old old.c; exec ./old"
    header, _, _ = sandbox.run("bash", "-euc", script)
    assert header["end"] == {"kind": "signaled", "signal": signal.SIGSYS}


INODES = """
import os
made = 0
try:
    while True:
        os.close(os.open(f"{os.environ['AT']}/{made}", os.O_CREAT))
        made += 1
except OSError as error:
    print(made, error.errno)
finally:
    for index in range(made):
        os.unlink(f"{os.environ['AT']}/{index}")
"""


def test_inodes_of_shared_memory_are_counted(sandbox: Sandbox) -> None:
    made, code = map(int, output(sandbox, "python3", "-c", INODES, AT="/dev/shm").split())
    # The directory itself is one.
    assert (made, code) == (16383, 28)


def test_a_name_is_not_found_at_once_and_the_own_one_is(sandbox: Sandbox) -> None:
    asked = """
import socket, time
begin = time.monotonic()
try:
    socket.getaddrinfo("qila.example", 80)
    print("found")
except socket.gaierror:
    print("none", time.monotonic() - begin < 2)
print(socket.gethostbyname(socket.gethostname()), socket.gethostbyname("localhost"))
"""
    assert output(sandbox, "python3", "-c", asked) == "none True\n127.0.0.1 127.0.0.1\n"


@pytest.mark.parametrize("case", sorted(CASES.iterdir()), ids=lambda case: case.name)
def test_a_toolchain_lives_with_the_profile(sandbox: Sandbox, case: Path) -> None:
    for file in case.iterdir():
        header, _ = sandbox.call("write", file.read_bytes(), path=f"{case.name}/{file.name}", executable=False)
        assert header["type"] == "result", header
    expected = (case / "expected").read_text(encoding="utf-8")
    assert output(sandbox, "bash", "-eu", "run", cwd=case.name) == expected


TOLD = {
    "python": (("python3", "-c", "import os; print(os.cpu_count(), os.process_cpu_count())"), "1 1"),
    "shell": (("nproc",), "1"),
    "node's heap": (
        ("node", "-p", "Math.round(v8.getHeapStatistics().heap_size_limit / 2 ** 20) >= 768"),
        "true",
    ),
    "node's threads": (("node", "-p", "process.env.UV_THREADPOOL_SIZE"), "4"),
}


@pytest.mark.parametrize("runtime", TOLD)
def test_a_runtime_knows_its_limits(sandbox: Sandbox, runtime: str) -> None:
    argv, expected = TOLD[runtime]
    assert output(sandbox, *argv).strip() == expected


def test_java_sees_its_limits_by_itself_and_says_nothing_of_them(sandbox: Sandbox) -> None:
    source = (
        "public class P { public static void main(String[] a) { Runtime r = Runtime.getRuntime();"
        ' System.out.println(r.availableProcessors() + " " + (r.maxMemory() <= 512L << 20)); } }'
    )
    script = f"cd /tmp; echo '{source}' > P.java; java P.java 2>&1"
    assert output(sandbox, "bash", "-euc", script) == "1 true\n"
