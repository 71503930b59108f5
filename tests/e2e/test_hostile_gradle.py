"""Gradle builds that have to run, and do what no build should; those that fail say where."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration

from qila.client.errors import InvalidArgumentError
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from tests.e2e.workbench import Told, Workbench

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

MAIN = "public class Main { public static void main(String[] args) { System.out.println(1); } }\n"
# The last line is what nobody can know without running it.
JAVA = "apply plugin: 'java'\ndef nothing() { [] }\n"
ASKED = "dependencies { implementation(nothing()) }\n"
SECONDS = 60
HANGS = """
['setsid', '-f', 'sleep', '1001'].execute()
println 'configuring'
while (true) { sleep(1000) }
"""
ANSWER = "System.getProperty('qila.declared')"
FORGED = {
    "format": 1,
    "projects": [
        {
            "path": ":",
            "directory": "",
            "mainClass": "",
            "sources": [],
            "testSources": [],
            "configurations": {
                "compileClasspath": {
                    "dependencies": [{"group": "..", "name": "../evil", "version": "1", "exclusions": []}],
                    "projects": [],
                    "forced": [],
                }
            },
        }
    ],
}
USERS = "stat -c %u /proc/[0-9]* 2>/dev/null | sort -u"


def installed(told: Told) -> str:
    """What installers printed."""
    found = [event.output.data for event in told.events if event.output.phase == pb.PHASE_INSTALL]
    return b"".join(found).decode(errors="replace")


def check_nothing_is_left(workbench: Workbench, sandbox: str) -> None:
    users = workbench.type(sandbox, USERS).split()
    assert "0" in users, "the processes of others are to be seen"
    assert "1001" not in users
    assert workbench.type(sandbox, "ls -A /sandbox/.qila/stage 2>/dev/null | wc -l").strip() == "0"


def test_build_that_hangs_while_it_is_configured_ends_with_the_time_of_its_install(workbench: Workbench) -> None:
    sandbox = workbench.sandbox({"Main.java": MAIN, "build.gradle": JAVA + HANGS + ASKED})
    begin = time.monotonic()
    told = workbench.run(sandbox, "Main.java", install_timeout=Duration(seconds=SECONDS))
    assert told.failure.startswith("timed_out\n"), told.everything()
    assert "configuring" in installed(told)
    assert SECONDS <= time.monotonic() - begin < SECONDS + 60
    check_nothing_is_left(workbench, sandbox)
    # What was asked in vain stands in nobody's way.
    workbench.put(sandbox, {"build.gradle": "apply plugin: 'java'\n"})
    assert workbench.run(sandbox, "Main.java").output() == "1\n"


def test_build_that_forges_its_answer_and_leaves_is_refused(workbench: Workbench) -> None:
    forge = f"new File({ANSWER}).text = {json.dumps(json.dumps(FORGED))}\nSystem.exit(0)\n"
    sandbox = workbench.sandbox({"Main.java": MAIN, "build.gradle": JAVA + forge + ASKED})
    with pytest.raises(InvalidArgumentError, match="what Gradle said of the build cannot be used: group is not valid"):
        workbench.run(sandbox, "Main.java")
    check_nothing_is_left(workbench, sandbox)


def test_build_whose_answer_is_huge_or_none_is_a_failed_build(workbench: Workbench) -> None:
    flood = f"new File({ANSWER}).withWriter {{ w -> 40000.times {{ w.write('[' * 1000) }} }}\nSystem.exit(0)\n"
    sandbox = workbench.sandbox({"Main.java": MAIN, "build.gradle": JAVA + flood + ASKED})
    told = workbench.run(sandbox, "Main.java")
    assert told.failure.startswith("build_failed\n"), told.everything()
    assert "declared.json" in told.failure
    workbench.put(sandbox, {"build.gradle": JAVA + "System.exit(0)\n" + ASKED})
    told = workbench.run(sandbox, "Main.java")
    assert told.failure.startswith("build_failed\n"), told.everything()
    check_nothing_is_left(workbench, sandbox)


def test_build_that_fails_names_its_line_and_what_to_do(workbench: Workbench) -> None:
    build = JAVA + ASKED + "\nthrow new GradleException('no such license')\n"
    sandbox = workbench.sandbox({"Main.java": MAIN, "build.gradle": build})
    told = workbench.run(sandbox, "Main.java")
    line = build.count("\n")
    assert told.failure.startswith("build_failed\n"), told.everything()
    assert f"build.gradle:{line}: " in told.failure
    assert "no such license" in told.failure
    assert "pom.xml" in told.failure
    assert "/sandbox/.qila" not in told.failure


def test_plugin_that_is_not_at_maven_central_is_said_to_be_missing(workbench: Workbench) -> None:
    plugin = "plugins {\n  id 'com.example.no-such-plugin' version '1.0'\n}\n"
    sandbox = workbench.sandbox({"Main.java": MAIN, "build.gradle": plugin + JAVA + ASKED})
    told = workbench.run(sandbox, "Main.java")
    assert told.failure.startswith("not_found\n"), told.everything()
    assert "com.example.no-such-plugin" in told.failure
    assert "plugins come from Maven Central alone" in told.failure
