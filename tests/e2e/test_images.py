"""Sandboxes from images with other toolchains, which are built from this recipe: a minute or two the first time."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from workbench import Workbench  # type: ignore[import-not-found]  # pytest puts this directory on the path

from qila.client import QilaError
from sandbox.image.build import BASE_TAG

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "tests/cases/images/older.txt"
pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

UUID = "github.com/google/uuid"
GO_MOD = f"module example.test/a\n\ngo {{language}}\n\nrequire {UUID} v1.6.0\n"
GO = f"""package main

import (
	"fmt"
	"runtime"

	"{UUID}"
)

func main() {{ fmt.Println(runtime.Version(), len(uuid.NewString())) }}
"""
NODE = {
    "main.js": "console.log(process.versions.node)",
    "package.json": '{"name": "a", "engines": {"node": ">=24"}, "dependencies": {"is-odd": "3.0.1"}}',
}
JAVA = "//JAVA 25\nvoid main() { IO.println(Runtime.version().feature()); }\n"


def built(*options: str) -> str:
    """The tag of an image, which is built unless the engine has it."""
    command = [str(ROOT / "scripts/image"), *options]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=800)
    return shown.stdout.strip()


@dataclass(kw_only=True)
class Stack:
    """An installation of its own, which can be started again with other images."""

    variables: dict[str, str]
    images: dict[str, str] = field(default_factory=dict)

    def qila(self, *arguments: str, **images: str) -> subprocess.CompletedProcess[str]:
        offered = ",".join(f"{name}={reference}" for name, reference in (images or self.images).items())
        return subprocess.run(
            [sys.executable, "-m", "qila.cli", *arguments],
            env={**self.variables, "QILA_IMAGES": offered},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def done(self, *arguments: str) -> str:
        ended = self.qila(*arguments)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def restart(self, images: Mapping[str, str]) -> None:
        self.images = dict(images)
        self.done("down")
        self.done("up")


@pytest.fixture(scope="module")
def named(sandbox_image: str) -> dict[str, str]:
    assert built("--tag") == sandbox_image
    return {"older": built("--with", str(PINS)), "java25": built("--java", "25")}


@pytest.fixture(scope="module")
def stack(sandbox_image: str, named: dict[str, str]) -> Iterator[Stack]:
    # Sockets below it need a short path.
    directory = Path(tempfile.mkdtemp(prefix="qi", dir="/tmp"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Stack(
        images=named,
        variables={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
            "QILA_STATE_DIR": str(directory / "state"),
            "QILA_RUN_DIR": str(directory / "run"),
            "QILA_GATEWAY_ADDRESS": f"127.0.0.1:{port}",
            "QILA_INSTANCE": f"e2e-images-{port}",
            "QILA_SANDBOX_IMAGE": sandbox_image,
        },
    )
    made.done("up")
    yield made
    for line in made.done("ls").splitlines():
        made.qila("rm", line.split()[0])
    made.done("down")
    shutil.rmtree(directory)


@pytest.fixture
def bench(stack: Stack) -> Iterator[Workbench]:
    made = Workbench(stack.variables["QILA_GATEWAY_ADDRESS"])
    yield made
    made.close()


def test_images_are_told_with_their_toolchains(bench: Workbench) -> None:
    images = {image.name: dict(image.toolchains) for image in bench.client.images()}
    assert list(images) == ["default", "older", "java25"]
    assert [toolchain["go"].split(".")[1] for toolchain in images.values()] == ["27", "26", "27"]
    assert [toolchain["node"].split(".")[0] for toolchain in images.values()] == ["24", "22", "24"]
    assert [toolchain["java"].split(".")[0] for toolchain in images.values()] == ["21", "21", "25"]
    assert images["older"]["npm"] != images["default"]["npm"]


def test_a_go_program_is_planned_and_run_with_the_go_of_its_image(bench: Workbench) -> None:
    fingerprints = []
    for image, version in (("", "go1.27"), ("older", "go1.26")):
        sandbox = bench.sandbox({"main.go": GO, "go.mod": GO_MOD.format(language="1.26")}, image=image)
        told = bench.run(sandbox, "main.go")
        assert told.output().startswith(version), told.everything()
        fingerprints.append(told.plan.fingerprint)
        assert bench.run(sandbox, "main.go").plan.installed
    assert fingerprints[0] != fingerprints[1]


def test_what_the_image_is_too_old_for_names_one_that_is_not(bench: Workbench) -> None:
    sandbox = bench.sandbox({"main.go": GO, "go.mod": GO_MOD.format(language="1.27")}, image="older")
    with pytest.raises(
        QilaError, match=r"^go\.mod:3: go 1\.27 is newer .*; image 'default' has Go 1\.27\.3; image 'java2"
    ):
        bench.run(sandbox, "main.go")
    sandbox = bench.sandbox({"Main.java": JAVA})
    with pytest.raises(QilaError, match=r"^Main\.java:1: asks for Java 25, .*; image 'java25' has Java 25\."):
        bench.run(sandbox, "Main.java")


def test_a_node_program_is_told_of_the_image_with_its_engine(bench: Workbench) -> None:
    told = bench.run(bench.sandbox(NODE, image="older"), "main.js")
    assert told.output().startswith("22."), told.everything()
    (notice,) = [notice for notice in told.notices if notice.subject == "engines"]
    assert "image 'default' has Node 24." in notice.message


def test_a_program_for_another_jdk_runs_in_its_image(bench: Workbench) -> None:
    told = bench.run(bench.sandbox({"Main.java": JAVA}, image="java25"), "Main.java")
    assert told.output() == "25\n", told.everything()


def test_a_java_program_with_a_dependency_runs_in_the_image_of_another_jdk(bench: Workbench) -> None:
    program = """//DEPS com.google.code.gson:gson:2.11.0
import com.google.gson.Gson;
class Main { public static void main(String[] a) { System.out.println(new Gson().toJson(new int[] {1})); } }
"""
    told = bench.run(bench.sandbox({"Main.java": program}, image="java25"), "Main.java")
    assert told.output() == "[1]\n", told.everything()


def test_a_sandbox_keeps_its_image_and_an_image_can_be_taken_back(
    stack: Stack, bench: Workbench, named: dict[str, str]
) -> None:
    sandbox = bench.sandbox({"note": "kept"}, image="older")
    version = bench.type(sandbox, "go version")
    assert "go1.26" in version
    stack.restart(named)
    assert bench.type(sandbox, "go version") == version
    stack.restart({"java25": named["java25"]})
    with pytest.raises(QilaError, match=r"older.*QILA_IMAGES") as refused:
        bench.type(sandbox, "go version")
    assert refused.value.reason == "IMAGE_NOT_ALLOWED"
    assert bench.client.sandbox(sandbox).image == "older"
    with pytest.raises(QilaError) as unknown:
        bench.sandbox({}, image="older")
    assert unknown.value.reason == "IMAGE_UNKNOWN"
    stack.restart(named)
    assert bench.type(sandbox, "go version; cat note") == f"{version}kept"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (BASE_TAG, f"QILA_IMAGES: bad={BASE_TAG}: it says of no recipe that it was built from it"),
        ("qila-sandbox:none", "QILA_IMAGES: bad=qila-sandbox:none: the sandbox image qila-sandbox:none is not on this"),
    ],
)
def test_a_bad_image_stops_the_executor_with_one_line(
    stack: Stack, named: dict[str, str], reference: str, words: str
) -> None:
    stack.done("down")
    refused = stack.qila("up", bad=reference)
    assert refused.returncode != 0
    assert words in refused.stderr
    stack.restart(named)


def test_an_image_of_the_recipe_that_was_weakened_afterwards_is_found_out(
    stack: Stack, sandbox_image: str, named: dict[str, str]
) -> None:
    weakened = "qila-test-weakened:1"
    agent = "/usr/lib/qila/sandboxd/qila_sandboxd"
    lines = f"FROM {sandbox_image}\nRUN rm -r {agent}/__pycache__ && sed -i s/C.UTF-8/C/ {agent}/environment.py\n"
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    build = ["timeout", "100", "docker", "build", "--quiet", "--tag", weakened, "-"]
    subprocess.run(build, input=lines, text=True, check=True, capture_output=True, env=environment)
    try:
        stack.done("down")
        refused = stack.qila("up", bad=weakened)
        assert refused.returncode != 0
        assert f"QILA_IMAGES: bad={weakened}: the sandbox profile does not hold: " in refused.stderr
    finally:
        subprocess.run(["timeout", "60", "docker", "rmi", weakened], check=True, capture_output=True)
    stack.restart(named)


def test_a_client_that_spells_a_reference_is_told_the_names(bench: Workbench, named: dict[str, str]) -> None:
    for reference in ("debian:latest", BASE_TAG, named["older"]):
        with pytest.raises(QilaError, match="it has default, older, java25") as refused:
            bench.client.create(image=reference)
        assert refused.value.reason == "IMAGE_UNKNOWN"
