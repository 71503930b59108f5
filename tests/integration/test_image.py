"""The sandbox image as it is used: no network, read-only root, programs as uid 1000."""

import json
import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.image.recipe import DIGEST_LENGTH, RECIPE_LABEL, REPOSITORY_ROOT, image_tag
from sandbox.sandboxd.qila_sandboxd.environment import environment
from services.executor.egress.registries import load_registries

pytestmark = pytest.mark.docker

FILTER = f"--security-opt=seccomp={REPOSITORY_ROOT / 'sandbox/seccomp.json'}"
CONTAINER = ("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp:exec")
PROFILE = (*CONTAINER, FILTER)
PATH = "/sandbox/.local/bin:/usr/local/bin:/usr/bin:/bin"


def docker(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["timeout", "100", "docker", *arguments], input=stdin, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def image() -> str:
    tag = image_tag()
    assert docker("image", "inspect", tag).returncode == 0, f"{tag} is missing: run `make image`"
    return tag


def run(image: str, script: str, *options: str, user: str = "1000:1000") -> str:
    """What a bash script prints in a new container with a new workspace; its failure fails the test."""
    settings = [
        f"--user={user}",
        f"--env=PATH={PATH}",
        "--env=HOME=/sandbox/.home",
        "--env=PYTHONUSERBASE=/sandbox/.local",
    ]
    workspace = [] if any(option.endswith(":/sandbox") for option in options) else ["--volume=/sandbox"]
    arguments = ["run", "--rm", "--interactive", "--init", *PROFILE, *settings, *workspace, *options]
    answer = docker(*arguments, "--entrypoint=bash", image, "-eu", stdin=script)
    assert answer.returncode == 0, answer.stderr + answer.stdout
    return answer.stdout


def test_the_label_names_the_recipe(image: str) -> None:
    answer = docker("image", "inspect", "--format", f'{{{{index .Config.Labels "{RECIPE_LABEL}"}}}}', image)
    assert answer.stdout.strip() == image[-DIGEST_LENGTH:]


def test_the_entry_point_is_sandboxd_without_site(image: str) -> None:
    answer = docker("image", "inspect", "--format", "{{json .Config.Entrypoint}}", image)
    assert json.loads(answer.stdout) == ["/usr/bin/python3", "-I", "-S", "/usr/lib/qila/sandboxd"]
    compiled = run(image, "ls /usr/lib/qila/sandboxd /usr/lib/qila/sandboxd/__pycache__")
    assert "__main__.py\n" in compiled
    assert "__main__.cpython-313.pyc\n" in compiled


COMMANDS = {
    "python": "python3 --version",
    "uv": "uv --version",
    "pip": "pip --version",
    "node": "node --version",
    "npm": "npm --version",
    "yarn": "yarn --version",
    "pnpm": "pnpm --version",
    "tsx": "tsx --version",
    "go": "go version",
    "java": "javac -version",
    "maven": "mvn --version",
    "gradle": "gradle --version",
}


@pytest.fixture(scope="module")
def versions(image: str) -> dict[str, str]:
    facts: Any = json.loads(run(image, "cat /usr/lib/qila/toolchains.json"))
    return dict(facts)


def test_every_toolchain_is_listed(versions: dict[str, str]) -> None:
    assert set(versions) == {*COMMANDS, "platform"}
    assert versions["python"].startswith("3.13.")
    assert versions["java"].startswith("21.")
    assert versions["platform"] in {"linux/amd64", "linux/arm64"}


@pytest.mark.parametrize("toolchain", list(COMMANDS))
def test_a_toolchain_starts_as_a_program_and_is_the_listed_version(
    toolchain: str, image: str, versions: dict[str, str]
) -> None:
    assert versions[toolchain] in run(image, COMMANDS[toolchain])


PROGRAMS = {
    "python": "echo 'print(\"hello\")' > main.py; python main.py",
    "node": "echo 'console.log(\"hello\")' > main.mjs; node main.mjs",
    "java": (
        "echo 'class Main { public static void main(String[] a) { System.out.println(\"hello\"); } }' > Main.java;"
        "javac Main.java; java Main"
    ),
    "c": "echo 'int puts(const char*); int main(void) { return puts(\"hello\") < 0; }' > m.c; gcc m.c -o m; ./m",
    "c++": "echo '#include <iostream>\nint main() { std::cout << \"hello\\n\"; }' > m.cc; g++ m.cc -o m; ./m",
    "python in c": (
        'echo \'#include <Python.h>\nint main(void) { Py_Initialize(); PyRun_SimpleString("print(\\"hello\\")");'
        " return Py_FinalizeEx(); }' > m.c; gcc m.c -o m $(pkg-config --cflags --libs python3-embed); ./m"
    ),
}


@pytest.mark.parametrize("language", list(PROGRAMS))
def test_hello_world(language: str, image: str) -> None:
    assert run(image, f"mkdir /sandbox/work; cd /sandbox/work; {PROGRAMS[language]}") == "hello\n"


GO_PROGRAM = """
    mkdir -p /sandbox/work; cd /sandbox/work
    cat >main.go <<'PROGRAM'
package main

import (
	"fmt"
	"net/http"
)

func main() { fmt.Println("hello", http.StatusOK) }
PROGRAM
"""
GO_CACHE = "/sandbox/.home/.cache/go-build"


def test_go_run_in_a_new_workspace_compiles_no_library(image: str) -> None:
    script = f"{GO_PROGRAM} go run -x main.go 2>trace; grep -c '/compile ' trace; du -sm {GO_CACHE} | cut -f 1"
    hello, compiled, megabytes, *_ = run(image, script).splitlines()
    assert (hello, compiled) == ("hello 200", "1")
    assert int(megabytes) < 50


def test_go_never_removes_the_links_to_the_images_build_cache(image: str) -> None:
    # What it removes is older than some days by this very time; what it has just written is not.
    old = f"find -L {GO_CACHE} -name '*-?' -type f ! -newermt '+1 year' ! -newermt '-1 minute'"
    links, *removable = run(image, f"{GO_PROGRAM} go list fmt; find {GO_CACHE} -type l | wc -l; {old}").splitlines()[1:]
    assert int(links) > 1000
    assert removable == []


def test_a_workspace_of_another_image_gets_links_to_this_ones_build_cache(image: str) -> None:
    stale = f"""
        mkdir -p {GO_CACHE}; cp -rsT /usr/lib/qila/gocache {GO_CACHE}
        ln -s /usr/lib/qila/gocache-id/another {GO_CACHE}/warm-id
        for link in $(find {GO_CACHE} -type l -name '*-d'); do ln -sfn /nowhere $link; done
    """
    script = f"{stale} {GO_PROGRAM} go run -x main.go 2>trace; grep -c '/compile ' trace"
    assert run(image, script).splitlines() == ["hello 200", "1"]


def test_a_build_cache_that_cannot_be_linked_is_told_in_one_line(image: str) -> None:
    script = f"mkdir -p {GO_CACHE}/00; chmod 555 {GO_CACHE}/00; go list fmt 2>problem; wc -l <problem; cat problem"
    package, lines, problem = run(image, script).splitlines()
    assert (package, lines) == ("fmt", "1")
    assert problem.startswith("go: the first build will be slow, for the image's build cache cannot be linked: ")


def test_go_has_its_door_and_tells_nobody_anything(image: str) -> None:
    script = "go list fmt >/dev/null; go env GOPROXY GOTOOLCHAIN GOFLAGS GOSUMDB GOTELEMETRY GONOSUMDB"
    assert run(image, script).split("\n") == [
        "http://127.0.0.1:7480/go",
        "local",
        "-modcacherw",
        load_registries().go.origins["sumdb"].host,
        "off",
        "",
        "",
    ]


def test_what_a_user_sets_for_go_comes_before_the_images_settings(image: str) -> None:
    assert run(image, "go env -w GOFLAGS=-mod=mod; go env GOFLAGS; GOFLAGS=-v go env GOFLAGS") == "-mod=mod\n-v\n"


def test_headers_of_common_libraries_are_found(image: str) -> None:
    run(image, "pkg-config --exists libpq libmariadb libffi openssl libxml-2.0 libxslt zlib libjpeg")


def test_shared_libraries_that_wheels_expect_load(image: str) -> None:
    names = ["libGL.so.1", "libglib-2.0.so.0", "libgthread-2.0.so.0", "libgomp.so.1", "libSM.so.6", "libXext.so.6"]
    run(image, f"python3 -c 'import ctypes; [ctypes.CDLL(n) for n in {json.dumps(names)}]'")
    assert "DejaVu" in run(image, "fc-list")


def test_users_and_the_skeleton_of_a_new_workspace(image: str) -> None:
    script = """
        getent passwd 1000 1001
        stat -c '%n %u:%g %a' /sandbox /sandbox/.qila /sandbox/.qila/home /sandbox/.home /sandbox/.local /run/qila
    """
    assert run(image, script).splitlines() == [
        "qila:x:1000:1000::/sandbox/.home:/bin/bash",
        "installer:x:1001:1001::/sandbox/.qila/home:/usr/sbin/nologin",
        "/sandbox 0:1000 1775",
        "/sandbox/.qila 1001:1001 755",
        "/sandbox/.qila/home 1001:1001 700",
        "/sandbox/.home 1000:1000 755",
        "/sandbox/.local 1000:1000 755",
        "/run/qila 0:0 755",
    ]


def test_nothing_in_the_image_gives_rights_away(image: str) -> None:
    script = """
        find / -xdev -type f -perm /6000
        find / -xdev -perm -0002 ! -type l ! -path '/tmp*' ! -path '/var/tmp' ! -path '/run/lock' -not -path '/dev/*'
        find /usr /etc -xdev \\( -user 1000 -o -user 1001 \\)
    """
    assert run(image, script, "--cap-add=DAC_READ_SEARCH", user="0:0") == ""


def test_no_file_of_the_system_shadows_a_programs_packages(image: str) -> None:
    script = "python3 -c 'import importlib.metadata as m; print(sorted(d.name for d in m.distributions()))'"
    assert run(image, script) == "['pip']\n"


def test_package_managers_go_through_the_mirror(image: str) -> None:
    mirror = "http://127.0.0.1:7480/pypi/simple/"
    assert f"global.index-url='{mirror}'\n" in run(image, "pip config list")
    answer = run(image, "uv pip install --dry-run --target /tmp/x nothing 2>&1 && exit 1 || true")
    assert mirror in answer


@pytest.mark.parametrize(("user", "home"), [("1000:1000", "/sandbox/.home"), ("1001:1001", "/sandbox/.qila/home")])
def test_node_package_managers_go_through_the_mirror_whatever_the_home(image: str, user: str, home: str) -> None:
    mirror = "http://127.0.0.1:7480/npm"
    settings = [f"--env={name}={value}" for name, value in environment(int(user[:4]), {"HOME": home}).items()]
    for directory in (home, "/tmp/elsewhere"):
        script = f"""
            mkdir -p /tmp/elsewhere; export HOME={directory}; cd /tmp
            npm config get registry; npm config get globalconfig; pnpm config get registry
            yarn config get npmRegistryServer; yarn config get nodeLinker
        """
        answer = run(image, script, *settings, user=user)
        assert answer.split() == [f"{mirror}/", "/etc/npmrc", f"{mirror}/", mirror, "node-modules"]


def test_a_program_that_starts_python_pays_nothing_for_a_stale_compiled_file(image: str) -> None:
    answer = run(image, "python3 -v -c pass 2>&1 | grep 'sitecustomize'")
    assert "code object from '/usr/lib/python3.13/sitecustomize.py'" not in answer
    assert "sitecustomize.cpython-313.pyc matches" in answer


@pytest.fixture
def volume() -> Iterator[str]:
    name = f"qila-test-{uuid.uuid4().hex[:12]}"
    assert docker("volume", "create", name).returncode == 0
    yield name
    assert docker("volume", "rm", "--force", name).returncode == 0


def test_an_environment_of_the_installer_is_found_compiled_and_out_of_a_programs_reach(image: str, volume: str) -> None:
    install = """
        cd /sandbox/.qila; mkdir -p env/python/fp/lib/pack bytecode/python current
        echo 'VALUE = "hello"' > env/python/fp/lib/pack/__init__.py
        ln -s ../env/python/fp current/python
        python3 /usr/lib/qila/python/compile_bytecode.py env/python/fp/lib bytecode/python/fp
        echo 'VALUE = "source"' > env/python/fp/lib/pack/__init__.py
    """
    assert json.loads(run(image, install, f"--volume={volume}:/sandbox", user="1001:1001")) == {
        "compiled": 1,
        "skipped": 0,
    }
    use = """
        python3 -c 'import pack; print(pack.VALUE, pack.__file__)'
        touch /sandbox/.qila/env/python/fp/lib/x 2>/dev/null && echo writable || true
        mv /sandbox/.qila /sandbox/other 2>/dev/null && echo movable || true
    """
    assert run(image, use, f"--volume={volume}:/sandbox") == (
        "hello /sandbox/.qila/env/python/fp/lib/pack/__init__.py\n"
    )


def scripts_image(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"DOCKER_HOST": path} if path else {})}
    return subprocess.run(
        [str(REPOSITORY_ROOT / "scripts/image"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )


def test_an_image_that_is_there_is_not_built_again(image: str) -> None:
    answer = scripts_image()
    assert answer.returncode == 0
    assert answer.stdout == f"{image}\n"
    assert answer.stderr.endswith(f"{image} is there already\n")


def test_without_an_engine_the_script_says_so_and_still_knows_the_tag(image: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        nowhere = f"unix://{Path(directory) / 'none.sock'}"
        answer = scripts_image(path=nowhere)
        assert answer.returncode == 1
        assert "run `make engine`" in answer.stderr
        assert scripts_image("--tag", path=nowhere).stdout == f"{image}\n"
