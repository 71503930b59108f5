"""The checker of the profile: a report of a good sandbox passes, and each way of being weaker fails by its row."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from services.executor.agent.frames import encode_frame, read_frame
from services.executor.assertions import refused
from services.executor.assertions.probe import PROBE_ID, assert_profile
from services.executor.assertions.report import MAX_REPORT_BYTES, ReportError, read_report
from services.executor.assertions.rows import Expectation, rows
from services.executor.config import read_config
from services.executor.errors import ExecutorError, ProbeError, ProfileError
from services.executor.ids import is_sandbox_id
from services.executor.images import Images
from services.executor.profile import Limits, load_profile
from services.executor.runtime.docker_container import masked_paths
from services.executor.runtime.fake import FakeRuntime
from services.executor.runtime.port import SandboxSpec
from services.executor.startup import assert_profile_holds
from services.rpc.config import Environment, StartError

PROFILE = load_profile()
LIMITS = Limits(cpu_millis=1500, memory_bytes=512 << 20, pids=64)
MASKED = tuple(masked_paths(PROFILE.masked))
WANTED = Expectation(
    profile=PROFILE,
    limits=LIMITS,
    user=1000,
    owns_workspace=True,
    environment={"PATH": "/usr/bin", "GOMAXPROCS": "2"},
    masked=MASKED,
    sandbox_id=PROBE_ID,
)
Weaken = Callable[[dict[str, Any]], object]


def mount(point: str, kind: str, options: str, root: str = "/") -> list[Any]:
    return [point, root, kind, options.split(",")]


def good() -> dict[str, Any]:
    """What a program of a sandbox that holds finds, as the probe says it (cgroup v1)."""
    no_capability = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapAmb"), "0" * 16)
    return {
        "user": [1000] * 3,
        "group": [1000] * 3,
        "groups": [1000],
        "status": no_capability | {"CapBnd": "00000000000000e0", "NoNewPrivs": "1", "Seccomp": "2"},
        "interfaces": ["lo"],
        "mounts": [
            mount("/", "overlay", "ro,relatime"),
            mount("/proc", "proc", "rw,nosuid,nodev,noexec"),
            mount("/proc/sys", "proc", "ro,nosuid,nodev,noexec", "/sys"),
            mount("/proc/acpi", "tmpfs", "ro,relatime"),
            mount("/proc/keys", "tmpfs", "rw,nosuid", "/null"),
            mount("/dev", "tmpfs", "rw,nosuid"),
            mount("/dev/pts", "devpts", "rw,nosuid,noexec"),
            mount("/dev/mqueue", "mqueue", "rw,nosuid,nodev,noexec"),
            mount("/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec"),
            mount("/sys", "sysfs", "ro,nosuid,nodev,noexec"),
            mount("/sys/fs/cgroup", "tmpfs", "rw,nosuid,nodev,noexec"),
            mount("/sys/fs/cgroup/memory", "cgroup", "ro,nosuid,nodev,noexec", "/docker/0123"),
            mount("/tmp", "tmpfs", "rw,nosuid,nodev"),
            mount("/sandbox", "ext4", "rw,relatime", "/var/lib/docker/volumes/x/_data"),
            mount("/run/qila", "tmpfs", "ro,relatime", f"/qila/sb/{PROBE_ID}"),
            *[mount(f"/etc/{name}", "ext4", "ro", f"/c/{name}") for name in ("hostname", "hosts", "resolv.conf")],
        ],
        "space": {"/tmp": [256 << 20, 65536], "/dev/shm": [256 << 20, 16384]},
        "writable": ["/dev/mqueue", "/dev/shm", "/sandbox", "/tmp"],
        "masked": dict.fromkeys(MASKED, "absent") | {"/proc/acpi": "empty", "/proc/keys": "empty"},
        "read_only": dict.fromkeys(PROFILE.read_only, True),
        "nofile": [16384, 16384],
        "core": [0, 0],
        "control_groups": {
            "cpu/cpu.cfs_period_us": "100000",
            "cpu/cpu.cfs_quota_us": "150000",
            "memory/memory.limit_in_bytes": str(512 << 20),
            "memory/memory.memsw.limit_in_bytes": str(512 << 20),
            "pids/pids.max": "64",
        },
        "swap_total": 0,
        "hostname": "sandbox",
        "nameservers": ["127.0.0.1"],
        "hosts": ["127.0.0.1", "::1", "fe00::0", "ff00::0", "ff02::1", "ff02::2", "127.0.0.1"],
        "nameserver_port": "EACCES",
        "control_socket": "EACCES",
        "first_process": [],
        "devices": ["full", "null", "random", "tty", "urandom", "zero"],
        "calls": dict(refused.EXPECTED),
        "environment": {"PATH": "/usr/bin", "GOMAXPROCS": "2"},
    }


def on_cgroup_v2(report: dict[str, Any]) -> None:
    report["mounts"] = [row for row in report["mounts"] if not row[0].startswith("/sys/fs/cgroup/")]
    report["control_groups"] = {
        "cpu.max": "150000 100000",
        "memory.max": str(512 << 20),
        "memory.swap.max": "0",
        "pids.max": "64",
    }


def failing(report: dict[str, Any], wanted: Expectation = WANTED) -> set[str]:
    return {row.name for row in rows(read_report(json.dumps(report).encode()), wanted) if not row.holds}


def test_a_good_report_passes_with_either_kind_of_control_groups() -> None:
    report = good()
    assert failing(report) == set()
    on_cgroup_v2(report)
    assert failing(report) == set()


def test_a_machine_without_swap_need_not_limit_it() -> None:
    report = good()
    del report["control_groups"]["memory/memory.memsw.limit_in_bytes"]
    assert failing(report) == set()
    report["swap_total"] = 1024
    assert failing(report) == {"swap"}


def options(point: str, text: str) -> Weaken:
    def weaken(report: dict[str, Any]) -> None:
        row = next(row for row in report["mounts"] if row[0] == point)
        row[3] = text.split(",")

    return weaken


def shows(point: str, root: str) -> Weaken:
    def weaken(report: dict[str, Any]) -> None:
        next(row for row in report["mounts"] if row[0] == point)[1] = root

    return weaken


def added(row: list[Any]) -> Weaken:
    return lambda report: report["mounts"].append(row)


def without(point: str) -> Weaken:
    return lambda report: report.update(mounts=[row for row in report["mounts"] if row[0] != point])


def put(field: str, name: str, value: Any) -> Weaken:
    return lambda report: report[field].update({name: value})


def replaced(field: str, value: Any) -> Weaken:
    return lambda report: report.update({field: value})


def lost(field: str, name: str) -> Weaken:
    return lambda report: report[field].pop(name)


WEAKER: list[tuple[str, Weaken]] = [
    ("user", replaced("user", [1000, 1000, 0])),
    ("group", replaced("group", [0, 1000, 1000])),
    ("groups", replaced("groups", [0, 1000])),
    ("hostname", replaced("hostname", "build-17.example.test")),
    ("CapInh", put("status", "CapInh", "0000000000000080")),
    ("CapPrm", put("status", "CapPrm", "0000000000000080")),
    ("CapEff", put("status", "CapEff", "00000000a80425fb")),
    ("CapAmb", put("status", "CapAmb", "0000000000000001")),
    ("CapAmb", lost("status", "CapAmb")),
    ("CapBnd", put("status", "CapBnd", "00000000000001e0")),
    ("CapBnd", put("status", "CapBnd", "")),
    ("NoNewPrivs", put("status", "NoNewPrivs", "0")),
    ("Seccomp", put("status", "Seccomp", "0")),
    *[(name, put("calls", name, "OK")) for name in refused.EXPECTED],
    ("bpf", lost("calls", "bpf")),
    ("clone3", put("calls", "clone3", "EINVAL")),
    ("interfaces", replaced("interfaces", ["eth0", "lo"])),
    ("interfaces", replaced("interfaces", [])),
    ("nameservers", replaced("nameservers", ["10.0.0.2"])),
    ("port 53", replaced("nameserver_port", "OK")),
    ("addresses of /etc/hosts", replaced("hosts", ["127.0.0.1", "172.17.0.1"])),
    ("addresses of /etc/hosts", replaced("hosts", ["2001:db8::1"])),
    ("mounts", options("/", "rw,relatime")),
    ("mounts", options("/proc/sys", "rw")),
    ("mounts", options("/proc/acpi", "rw")),
    ("mounts", options("/tmp", "rw,nodev")),
    ("mounts", options("/dev/shm", "rw,nosuid,nodev")),
    ("mounts", options("/run/qila", "rw")),
    ("mounts", options("/sys/fs/cgroup/memory", "rw,nosuid,nodev,noexec")),
    ("mounts", shows("/run/qila", "/qila/sb")),
    ("mounts", shows("/run/qila", "/")),
    ("mounts", added(mount("/var/run/docker.sock", "tmpfs", "ro", "/docker.sock"))),
    ("mounts", added(mount("/sandbox/host", "ext4", "ro"))),
    ("mounts", added(mount("/etc", "ext4", "ro"))),
    ("mounts twice", added(mount("/tmp", "tmpfs", "rw,nosuid,nodev"))),
    ("mounts that are missing", without("/tmp")),
    ("mounts that are missing", without("/etc/resolv.conf")),
    ("space of /tmp", put("space", "/tmp", [256 << 20, 0])),
    ("space of /dev/shm", put("space", "/dev/shm", [1 << 34, 16384])),
    ("mounts that it can write to", replaced("writable", ["/", "/dev/mqueue", "/dev/shm", "/sandbox", "/tmp"])),
    ("mounts that it can write to", replaced("writable", ["/dev/mqueue", "/dev/shm", "/tmp"])),
    ("masked paths", put("masked", "/proc/kcore", "refused")),
    ("masked paths", put("masked", "/proc/keys", "content")),
    ("masked paths", lost("masked", "/sys/firmware")),
    ("read-only paths", put("read_only", "/proc/sys", value=False)),
    ("read-only paths", lost("read_only", "/proc/irq")),
    ("devices", replaced("devices", ["kvm", "null"])),
    ("devices", replaced("devices", [""])),
    ("open files (soft, hard)", replaced("nofile", [1024, 1048576])),
    ("size of a core dump (soft, hard)", replaced("core", [0, -1])),
    ("pids", put("control_groups", "pids/pids.max", "max")),
    ("pids", lost("control_groups", "pids/pids.max")),
    ("memory", put("control_groups", "memory/memory.limit_in_bytes", "9223372036854771712")),
    ("memory", lost("control_groups", "memory/memory.limit_in_bytes")),
    ("swap", put("control_groups", "memory/memory.memsw.limit_in_bytes", "9223372036854771712")),
    ("thousandths of a processor", put("control_groups", "cpu/cpu.cfs_quota_us", "-1")),
    ("thousandths of a processor", put("control_groups", "cpu/cpu.cfs_period_us", "0")),
    ("the first process", replaced("first_process", ["environ"])),
    ("sandboxd's socket", replaced("control_socket", "OK")),
    ("environment", put("environment", "DOCKER_HOST", "unix:///var/run/docker.sock")),
    ("environment", lost("environment", "GOMAXPROCS")),
]
WEAKER_ON_CGROUP_V2: list[tuple[str, Weaken]] = [
    ("memory", put("control_groups", "memory.max", "max")),
    ("swap", put("control_groups", "memory.swap.max", "max")),
    ("pids", put("control_groups", "pids.max", "max")),
    ("thousandths of a processor", put("control_groups", "cpu.max", "max 100000")),
    ("thousandths of a processor", lost("control_groups", "cpu.max")),
]


@pytest.mark.parametrize(("row", "weaken"), WEAKER)
def test_a_weaker_sandbox_fails_by_its_row(row: str, weaken: Weaken) -> None:
    report = good()
    weaken(report)
    assert failing(report) == {row}


@pytest.mark.parametrize(("row", "weaken"), WEAKER_ON_CGROUP_V2)
def test_a_weaker_sandbox_on_cgroup_v2_fails_by_its_row(row: str, weaken: Weaken) -> None:
    report = good()
    on_cgroup_v2(report)
    weaken(report)
    assert failing(report) == {row}


def test_the_table_of_weaker_sandboxes_has_every_row() -> None:
    every = {row.name for row in rows(read_report(json.dumps(good()).encode()), WANTED)}
    assert {row for row, _ in WEAKER} == every


def test_the_install_user_may_not_write_to_the_workspace() -> None:
    wanted = dataclasses.replace(WANTED, owns_workspace=False)
    assert failing(good(), wanted) == {"mounts that it can write to"}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b" " * (MAX_REPORT_BYTES + 1),
        json.dumps(good() | {"more": 1}).encode(),
        json.dumps(good() | {"user": "1000"}).encode(),
        json.dumps(good() | {"user": [True]}).encode(),
        json.dumps(good() | {"mounts": [["/", "/", "overlay", "ro"]]}).encode(),
        json.dumps(good() | {"mounts": [["/", "/", "overlay", [1]]]}).encode(),
        json.dumps(good() | {"read_only": {"/proc/sys": 1}}).encode(),
        json.dumps(good() | {"environment": {"A": None}}).encode(),
        json.dumps(good() | {"swap_total": 0.5}).encode(),
    ],
)
def test_a_report_of_another_shape_is_refused(text: bytes) -> None:
    with pytest.raises(ReportError):
        read_report(text)


WELCOME: dict[str, Any] = {"type": "welcome", "protocol": 1, "processes": []}


class Sandboxd:
    """The agent of the fake engine's container: answers each start order with what the test says."""

    def __init__(self, answer: Callable[[str], bytes]) -> None:
        self.answer = answer
        self.end: dict[str, Any] = {"kind": "exited", "code": 0}
        self.tasks: list[asyncio.Task[None]] = []
        self.toolchains: dict[str, str] = {}
        self.started: list[str] = []

    async def start(self, spec: SandboxSpec) -> None:
        self.started.append(spec.image)
        reader, writer = await asyncio.open_unix_connection(spec.socket_directory / "control.sock")
        writer.write(encode_frame({**WELCOME, "toolchains": self.toolchains}))
        self.tasks.append(asyncio.create_task(self.serve(reader, writer)))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (frame := await read_frame(reader)) is not None:
            if frame[0]["type"] == "start":
                self.run(frame[0], writer)
        writer.close()

    def run(self, order: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        process, text = order["process"], self.answer(order["user"])
        for offset in range(0, len(text), 60_000):
            header = {"type": "output", "process": process, "stream": "stdout", "offset": offset}
            writer.write(encode_frame(header, text[offset : offset + 60_000]))
        lengths = {"stdout": len(text), "stderr": 0}
        header = {"type": "ended", "process": process, "end": self.end, "offsets": lengths, "oom_kills": 0}
        writer.write(encode_frame(header))

    async def close(self) -> None:
        await asyncio.gather(*self.tasks)


def answer_of(user: str) -> dict[str, Any]:
    """A good report with the limits and the environment of a real one."""
    report = good()
    variables = {
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PNPM_CONFIG_NPMRC_AUTH_FILE": "/etc/npmrc",
        "PNPM_CONFIG_UPDATE_NOTIFIER": "false",
        "PNPM_CONFIG_PM_ON_FAIL": "ignore",
        "npm_package_config_node_gyp_nodedir": "/usr/lib/qila/node",
        "NODE_OPTIONS": "--max-old-space-size=384",
    }
    variables |= dict.fromkeys(
        ("PYTHON_CPU_COUNT", "GOMAXPROCS", "OMP_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"), "2"
    )
    variables["UV_THREADPOOL_SIZE"] = "4"
    path = "/usr/local/bin:/usr/bin:/bin"
    if user == "program":
        variables |= {"PATH": f"/sandbox/.local/bin:{path}", "HOME": "/sandbox/.home", "USER": "qila"}
        variables |= {"MPLBACKEND": "Agg", "PYTHONUSERBASE": "/sandbox/.local", "PIP_BREAK_SYSTEM_PACKAGES": "1"}
        variables["NODE_OPTIONS"] = f"--require=/usr/lib/qila/node-support/resolve.cjs {variables['NODE_OPTIONS']}"
    else:
        variables |= {"PATH": path, "HOME": "/sandbox/.qila/home", "USER": "installer", "PYTHONNOUSERSITE": "1"}
        report |= {"user": [1001] * 3, "group": [1001] * 3, "groups": [1001]}
        report["writable"].remove("/sandbox")
    return report | {"environment": variables}


@pytest.fixture
async def sandboxd() -> AsyncIterator[Sandboxd]:
    fake = Sandboxd(lambda user: json.dumps(answer_of(user)).encode())
    yield fake
    await fake.close()


@pytest.fixture
def runtime(sandboxd: Sandboxd) -> FakeRuntime:
    return FakeRuntime(images=["image"], on_start=sandboxd.start)


async def asserted(runtime: FakeRuntime, directory: Path) -> None:
    await assert_profile(runtime, PROFILE, image="image", limits=LIMITS, run_directory=directory)


@pytest.fixture(autouse=True)
def short_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Socket paths are short: tests give them relative to a directory of their own."""
    monkeypatch.chdir(tmp_path_factory.mktemp("p"))


RUN = Path("run")


async def test_a_profile_that_holds_leaves_nothing_behind(runtime: FakeRuntime) -> None:
    await asserted(runtime, RUN)
    assert await runtime.list() == []
    assert list((RUN / "sb").iterdir()) == []


@pytest.mark.parametrize(
    ("user", "field", "value", "message"),
    [
        ("program", "interfaces", ["eth0", "lo"], "program: interfaces: expected ['lo'], found ['eth0', 'lo']"),
        ("install", "core", [0, -1], "install: size of a core dump"),
        ("install", "hostname", "a\nqila executor: all is well", r"found a\nqila"),
    ],
)
async def test_a_row_that_does_not_hold_is_named_on_one_line(
    runtime: FakeRuntime, sandboxd: Sandboxd, user: str, field: str, value: Any, message: str
) -> None:
    sandboxd.answer = lambda who: json.dumps(answer_of(who) | ({field: value} if who == user else {})).encode()
    with pytest.raises(ProfileError) as caught:
        await asserted(runtime, RUN)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert await runtime.list() == []


async def test_an_answer_without_end_is_cut_off(runtime: FakeRuntime, sandboxd: Sandboxd) -> None:
    sandboxd.answer = lambda _: b"x" * (MAX_REPORT_BYTES + 1)
    with pytest.raises(ExecutorError, match="the connection broke during the probe"):
        await asserted(runtime, RUN)
    assert await runtime.list() == []


async def test_a_probe_that_fails_is_no_proof(runtime: FakeRuntime, sandboxd: Sandboxd) -> None:
    sandboxd.end = {"kind": "exited", "code": 1}
    with pytest.raises(ProbeError, match="as user 'program': the probe ended"):
        await asserted(runtime, RUN)
    sandboxd.end = {"kind": "start_failed", "error": "ENOENT", "detail": ""}
    with pytest.raises(ProbeError, match="ENOENT"):
        await asserted(runtime, RUN)
    sandboxd.end = {"kind": "exited", "code": 0}
    sandboxd.answer = lambda _: b"fine"
    with pytest.raises(ProbeError, match="not JSON"):
        await asserted(runtime, RUN)


async def test_what_a_killed_executor_left_is_replaced(runtime: FakeRuntime) -> None:
    left = SandboxSpec(sandbox_id=PROBE_ID, image="image", limits=LIMITS, socket_directory=RUN)
    await runtime.create(left)
    (RUN / "sb" / PROBE_ID).mkdir(parents=True)
    await asserted(runtime, RUN)
    assert await runtime.list() == []


def test_the_probes_id_is_one_that_the_engine_may_see() -> None:
    assert is_sandbox_id(PROBE_ID)


NAMED = {"QILA_SANDBOX_IMAGE": "image", "QILA_IMAGES": "go1.26=older,also=older,java25=newer", "QILA_RUN_DIR": "/r"}
RECIPES = {"image": "r1", "older": "r1", "newer": "r1", "foreign": "r2"}


async def images_of(sandboxd: Sandboxd, *, recipes: Mapping[str, str] = RECIPES, **variables: str) -> Images:
    """What an executor with these variables would offer."""
    config = read_config(Environment({**NAMED, **variables}))
    runtime = FakeRuntime(images=list(RECIPES), on_start=sandboxd.start, recipes=recipes)
    return await assert_profile_holds(dataclasses.replace(config, run_directory=RUN), PROFILE, runtime, LIMITS)


async def test_every_image_is_looked_at_once_and_tells_its_toolchains(sandboxd: Sandboxd) -> None:
    sandboxd.toolchains = {"go": "1.26.6"}
    images = await images_of(sandboxd)
    assert [image.name for image in images.all()] == ["default", "go1.26", "also", "java25"]
    assert images.find("go1.26").toolchains == {"go": "1.26.6"}
    assert sandboxd.started == ["image", "older", "newer"]


@pytest.mark.parametrize(
    ("images", "recipes", "words"),
    [
        ("x=absent", RECIPES, r"^QILA_IMAGES: x=absent: the sandbox image absent is not on this machine"),
        ("x=foreign", RECIPES, r"^QILA_IMAGES: x=foreign: it is of recipe r2, QILA_SANDBOX_IMAGE is of r1; build"),
        ("x=older", {"image": "r1"}, r"^QILA_IMAGES: x=older: it says of no recipe .*QILA_SANDBOX_IMAGE is of r1"),
        ("x=older", {}, r"^QILA_IMAGES: x=older: it says of no recipe .*QILA_SANDBOX_IMAGE is of none"),
    ],
)
async def test_an_image_that_is_not_of_the_recipe_stops_the_executor(
    sandboxd: Sandboxd, images: str, recipes: Mapping[str, str], words: str
) -> None:
    with pytest.raises(StartError, match=words) as refused:
        await images_of(sandboxd, recipes=recipes, QILA_IMAGES=images)
    assert "\n" not in str(refused.value)
    assert sandboxd.started == []


async def test_an_image_behind_which_the_profile_does_not_hold_stops_the_executor(sandboxd: Sandboxd) -> None:
    good_answer = sandboxd.answer

    def answer(user: str) -> bytes:
        report = json.loads(good_answer(user))
        if sandboxd.started[-1] == "newer":
            report["nameservers"] = ["192.0.2.1"]
        return json.dumps(report).encode()

    sandboxd.answer = answer
    with pytest.raises(
        StartError, match=r"^QILA_IMAGES: java25=newer: the sandbox profile does not hold: .*nameservers"
    ):
        await images_of(sandboxd)


async def test_without_names_no_label_is_asked_for(sandboxd: Sandboxd) -> None:
    images = await images_of(sandboxd, recipes={}, QILA_IMAGES="")
    assert [image.name for image in images.all()] == ["default"]
