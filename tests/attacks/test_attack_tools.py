"""Public tools of destruction inside a sandbox: stress-ng, trinity, slowhttptest, h2load; and floods that take minutes.

They run in an image that is the shipped one and the tools. What they do to their own sandbox is their own affair; the
oracles are the limits as the host counts them, and whether another sandbox is served in the meantime.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import stack as stacks
from .boxes import Box, Boxes, Shipped, host_pids, run_python
from .frame import Weakness, attack
from .mirror import EXACT, answered_in_time
from .stack import Stack
from .test_attack_resources import FLOOD_INODES, tasks
from .upstream import Upstream

pytestmark = [pytest.mark.docker, pytest.mark.long, pytest.mark.timeout(900)]

TOOLS = "stress-ng trinity slowhttptest nghttp2-client"
RECIPE = """
FROM {image}
RUN apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends {tools} \
    && apt-get clean && find / -xdev -type f -perm /6000 -exec chmod a-s {{}} +
"""
UNLIMITED = {"Memory": 0, "MemorySwap": 0, "PidsLimit": 0}
SOAK_SECONDS = 60
# Two processors that a test suite shares are slow by themselves.
PATIENCE_SECONDS = 60
MEMORY_BYTES = 2 << 30
PIDS = 512


@pytest.fixture(scope="module")
def tools(sandbox_image: str, upstream: Upstream) -> Iterator[Stack]:
    """An installation whose sandboxes have the tools."""
    image = f"qila-attack-tools:{sandbox_image.rpartition(':')[2]}"
    subprocess.run(
        ["docker", "build", "--network", "host", "--tag", image, "-"],
        input=RECIPE.format(image=sandbox_image, tools=TOOLS).encode(), check=True, capture_output=True, timeout=600,
    )  # fmt: skip
    started = stacks.start(image, upstream.url)
    yield started
    stacks.stop(started)


@pytest.fixture(scope="module")
def boxes(tools: Stack) -> Iterator[Boxes]:
    made = Boxes(tools)
    yield made
    made.close()


@pytest.fixture
def stack(tools: Stack) -> Stack:
    return tools


class Watch(threading.Thread):
    """Looks, while something goes on, at what a sandbox has got, and at whether another one is served."""

    def __init__(self, box: Box, neighbour: Box) -> None:
        super().__init__(daemon=True)
        self.evidence: list[str] = []
        self._box = box
        self._neighbour = neighbour
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(1):
            if (count := tasks(self._box)) > PIDS:
                self.evidence.append(f"{count} processes and threads")
            if (held := resident(self._box)) > MEMORY_BYTES * 1.02:
                self.evidence.append(f"{held} bytes of memory")
            begun = time.monotonic()
            self._neighbour.run("true")
            if (waited := time.monotonic() - begun) > PATIENCE_SECONDS:
                self.evidence.append(f"another sandbox waited {waited:.0f} s")

    def end(self) -> list[str]:
        self._ended.set()
        self.join()
        return self.evidence


def resident(box: Box) -> int:
    """Memory of all processes of the container that no other process shares, in bytes."""
    total = 0
    for pid in host_pids(box.container):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            total += int(status.partition("RssAnon:")[2].split()[0]) << 10
        except (OSError, IndexError):
            continue
    return total


STRESS = {
    "memory": ("--vm", "4", "--vm-bytes", "3000m", "--vm-keep"),
    "processes": ("--fork", "8", "--clone", "4", "--pthread", "4", "--pthread-max", "300"),
    "everything of the system": ("--class", "os", "--sequential", "2", "--timeout", "1"),
    "file systems": ("--class", "filesystem", "--sequential", "2", "--timeout", "1", "--temp-path", "/sandbox"),
    "the network": ("--class", "network", "--sequential", "2", "--timeout", "1"),
    "virtual memory": ("--class", "vm", "--sequential", "2", "--timeout", "1"),
}


def stress(box: Box, boxes: Boxes, stack: Stack, how: str) -> list[str]:
    neighbour = Shipped(stack)
    watch = Watch(box, neighbour)
    watch.start()
    arguments = STRESS[how] if "--timeout" in STRESS[how] else (*STRESS[how], "--timeout", "20")
    outcome = box.run("stress-ng", "--temp-path", "/tmp", *arguments, seconds=400)
    evidence = watch.end()
    neighbour.close()
    assert outcome.kind in {"exited", "timed_out", "oom_killed", "signaled"}, outcome
    assert b"stress-ng" in outcome.err + outcome.out, outcome
    return evidence


@pytest.mark.parametrize("how", ["memory", "processes"])
@attack(weakened=Weakness(name="no limits", rows=UNLIMITED), fresh=True)
def test_take_more_than_the_limits_with_stress_ng(box: Box, boxes: Boxes, stack: Stack, how: str) -> list[str]:
    return stress(box, boxes, stack, how)


@pytest.mark.parametrize("how", sorted(STRESS.keys() - {"memory", "processes"}))
def test_a_sandbox_under_stress_ng_harms_nobody(boxes: Boxes, stack: Stack, how: str) -> None:
    box = Shipped(stack)
    assert stress(box, boxes, stack, how) == []
    assert box.run("true").code == 0
    box.close()


def tainted() -> str:
    return Path("/proc/sys/kernel/tainted").read_text()


def test_a_sandbox_under_trinity_harms_nobody(boxes: Boxes, stack: Stack) -> None:
    box, neighbour = Shipped(stack), Shipped(stack)
    before = tainted()
    watch = Watch(box, neighbour)
    watch.start()
    outcome = box.run("sh", "-c", "cd /tmp && exec trinity -q -C 4", seconds=SOAK_SECONDS)
    assert watch.end() == []
    assert outcome.kind in {"exited", "timed_out", "oom_killed", "signaled"}, outcome
    assert tainted() == before
    assert box.run("true").code == 0
    for made in (box, neighbour):
        made.close()


MIRROR = "http://127.0.0.1:7480/pypi/simple/x/"
SLOW = f"slowhttptest -c 1000 -r 200 -l 40 -u {MIRROR}"
HTTP_TOOLS = {
    "slow headers": f"{SLOW} -H -i 5",
    "slow bodies": f"{SLOW} -B -i 5 -s 8192",
    "slow reads": f"{SLOW} -X -w 1 -y 2 -n 5",
    "h2load": f"h2load --h1 -n 20000 -c 200 -t 2 {MIRROR}",
    "h2load by HTTP/2": f"h2load -n 2000 -c 50 {MIRROR}",
}


@pytest.mark.parametrize("tool", HTTP_TOOLS)
def test_the_doors_serve_others_under(boxes: Boxes, stack: Stack, upstream: Upstream, tool: str) -> None:
    box, neighbour = Shipped(stack), Shipped(stack)
    begun = len(upstream.seen)
    late: list[float] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(1):
            begin = time.monotonic()
            if not answered_in_time(neighbour, 20):
                late.append(time.monotonic() - begin)

    asking = threading.Thread(target=ask)
    asking.start()
    outcome = box.run("sh", "-c", f"cd /tmp && {HTTP_TOOLS[tool]}", seconds=120)
    ended.set()
    asking.join()
    assert outcome.kind in {"exited", "timed_out"}, outcome
    assert late == []
    assert [line for line in upstream.seen[begun:] if not EXACT.fullmatch(line)] == []
    for made in (box, neighbour):
        made.close()


@attack(weakened=Weakness(name="a plain volume, again"))
def test_flood_the_workspace_with_files(box: Box) -> list[int]:
    (made,) = map(int, run_python(box, FLOOD_INODES, "/sandbox/flood", 700_000, seconds=400))
    assert made > 100_000, "the flood has come"
    return [made] if made == 700_000 else []
