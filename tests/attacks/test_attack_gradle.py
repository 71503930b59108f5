"""Gradle builds that the sandbox's own Gradle is asked about: programs of strangers, as are their answers."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from services.resolver.errors import ManifestError
from services.resolver.java import gradle_answer
from services.resolver.java.planner import JavaPlanner
from services.resolver.model import Context, Plan, Target

from .boxes import Box, run_python
from .frame import BRIDGE, ROOT, Setting, attack
from .oracles import HostServices, host_addresses

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.docker, pytest.mark.timeout(400)]

MAIN = b"public class Main { public static void main(String[] args) { System.out.println(1); } }\n"
UNREADABLE = "apply plugin: 'java'\ndependencies { implementation(what()) }\ndef what() { 'a:b:1' }\n"
CONTEXT = Context(toolchain={"java": "21.0.8", "maven": "3.9.9", "gradle": "4.4.1"})
MARK = "qila-attack"
# Of the program, of the image, of other users.
PLACES = (
    "/sandbox/Main.java", "/sandbox/new", "/sandbox/.home/.gradle/init.d/new.gradle", "/sandbox/.cache/qila-java/new",
    "/usr/share/gradle/init.d/new.gradle", "/usr/lib/qila/java/run", "/etc/profile.d/new.sh", "/root/new",
)  # fmt: skip
# Does what an install does with a plan's files and its step, in a directory of its own.
RUN_STEP = r"""
import base64, json, os, pathlib, subprocess, sys, tempfile
argv, staged = json.loads(sys.argv[1])
stage = pathlib.Path(tempfile.mkdtemp())
for path, content in staged.items():
    (stage / path).parent.mkdir(parents=True, exist_ok=True)
    (stage / path).write_bytes(base64.b64decode(content))
done = subprocess.run(argv, cwd=stage, env={**os.environ, 'HOME': str(stage)}, stdin=subprocess.DEVNULL,
                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
print((stage / 'declared.json').exists(), done.returncode, done.stdout[-2000:])
"""
WRITE = """
%s.each { place ->
    try {
        new File(place).parentFile.mkdirs()
        new File(place).text = '%s'
    } catch (IOException refused) {
        println refused
    }
}
"""
CONNECT = """
%s.each { address ->
    try {
        new Socket().withCloseable { it.connect(new InetSocketAddress(address, %d), 500) }
    } catch (Exception refused) {
        println refused
    }
    try {
        new DatagramSocket().withCloseable {
            it.send(new DatagramPacket('attack'.bytes, 6, new InetSocketAddress(address, %d)))
        }
    } catch (Exception refused) {
        println refused
    }
}
"""


def question(build: str) -> Plan:
    files = {"build.gradle": build.encode(), "Main.java": MAIN}
    plan = JavaPlanner().plan(files, list(files), Target(program="Main.java"), CONTEXT)
    assert plan.preliminary
    return plan


def ask(box: Box, build: str) -> None:
    """Has a build evaluated; it must have come to its end."""
    plan = question(build)
    staged = {file.path: base64.b64encode(file.content).decode() for file in plan.staged}
    step = json.dumps([plan.steps[0].argv, staged])
    lines = run_python(box, RUN_STEP, step, user="install", seconds=200)
    assert lines[0].startswith("True 0"), lines


@attack(weakened=ROOT)
def test_build_writes_where_programs_and_other_installs_read(box: Box) -> list[str]:
    ask(box, UNREADABLE + WRITE % (json.dumps(PLACES), MARK))
    looking = f"for place in {' '.join(PLACES)}; do grep -l {MARK} $place 2>/dev/null; done; true"
    return box.run("sh", "-c", looking).out.decode().split()


@attack(weakened=BRIDGE)
def test_build_reaches_the_host(box: Box, host: HostServices) -> list[str]:
    addresses = json.dumps([str(address) for address in host_addresses()])
    ask(box, UNREADABLE + CONNECT % (addresses, host.port, host.port))
    return host.seen


def answer(**changes: Any) -> dict[str, Any]:
    project: dict[str, Any] = {
        "path": ":", "directory": "", "mainClass": "", "sources": [], "testSources": [], "configurations": {},
    }  # fmt: skip
    return {"format": 1, "projects": [project | changes]}


def needing(**changes: Any) -> dict[str, Any]:
    dependency = {"group": "a", "name": "b", "version": "1", "classifier": "", "extension": "jar", "exclusions": []}
    configuration = {"dependencies": [dependency | changes], "projects": [], "forced": []}
    return answer(configurations={"compileClasspath": configuration, "runtimeClasspath": configuration})


def forgeries() -> Iterator[dict[str, Any]]:
    for field in ("group", "name", "version", "classifier", "extension"):
        for text in (f"../../{MARK}", f"{MARK}/../..", f"x\n{MARK}", f"</version><!--{MARK}", f"${{{MARK}}}"):
            yield needing(**{field: text})
    yield needing(exclusions=[{"group": f"<{MARK}>", "module": "*"}])
    forced = {"dependencies": [], "projects": [], "forced": [f"a:b:../{MARK}"]}
    yield answer(configurations={"compileClasspath": forced})
    yield answer(mainClass=f"-javaagent:/tmp/{MARK}.jar")
    yield answer(mainClass=f"Main\n{MARK}")
    yield answer(directory=f"../{MARK}")
    yield answer(sources=[f"../../{MARK}"])
    yield answer(sources=[f"/tmp/{MARK}"])
    yield answer(sources=[f"x:/tmp/{MARK}"])


@attack(weakened="answers that are taken at their word")
def test_build_forges_what_it_declares(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    if setting is Setting.WEAKENED:
        everything = re.compile(r"(?s:.*)")
        for name in ("CLASS", "PATH", "DIRECTORY", "ANY", "NAME"):
            monkeypatch.setattr(gradle_answer, name, everything)
        monkeypatch.setattr(gradle_answer, "is_valid", lambda _: True)
        monkeypatch.setattr(gradle_answer, "normal", lambda path: path)
    files = {"build.gradle": UNREADABLE.encode(), "Main.java": MAIN}
    key = question(UNREADABLE).fingerprint
    came_through = []
    for forged in forgeries():
        context = dataclasses.replace(CONTEXT, answers={key: json.dumps(forged).encode()})
        try:
            plan = JavaPlanner().plan(files, list(files), Target(program="Main.java"), context)
        except ManifestError:
            continue
        shown = repr((plan.requirements, plan.staged, plan.launch, plan.steps))
        if MARK in shown:
            came_through.append(json.dumps(forged))
    return came_through
