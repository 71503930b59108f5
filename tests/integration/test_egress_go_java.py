"""go, mvn and gradle as people type them: in the sandbox image, without a network, through doors to the registries."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from naive_mirror import NaiveMirror, NaiveRules  # type: ignore[import-not-found]  # pytest puts this directory on the path

from services.executor.egress.ecosystems.go import GoModules
from services.executor.egress.ecosystems.maven import MavenCentral
from services.executor.egress.ecosystems.port import Fetched
from services.executor.egress.registries import load_registries

pytestmark = [pytest.mark.docker, pytest.mark.timeout(400)]

UUID = "github.com/google/uuid"
DENIED = "github.com/pkg/errors"
RULES = NaiveRules(packages=frozenset({DENIED}), releases=frozenset({(UUID, "v1.6.0")}))
MOUNT = "/run/test-doors"

# What sandboxd does in a sandbox: carry bytes from the loopback port to the doors' socket.
RELAY = f"""
import asyncio

async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()

async def relay(reader, writer):
    up_reader, up_writer = await asyncio.open_unix_connection("{MOUNT}/doors.sock")
    await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))

async def main():
    server = await asyncio.start_server(relay, "127.0.0.1", 7480)
    print("listening", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """A new container for each script, whose loopback port leads to the mirror."""

    image: str
    doors: Path
    mirror: NaiveMirror

    async def run(self, script: str, *, code: int = 0) -> str:
        """All that a bash script of uid 1000 prints."""
        relay = (
            f"coproc python3 -I {MOUNT}/relay.py; read -r -u ${{COPROC[0]}}; mkdir /sandbox/work; cd /sandbox/work\n"
        )
        process = await asyncio.create_subprocess_exec(
            "timeout", "300", "docker", "run", "--rm", "--interactive", "--init", "--network=none", "--read-only",
            "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp:exec", "--volume=/sandbox",
            f"--volume={self.doors}:{MOUNT}:ro", "--user=1000:1000", "--env=HOME=/sandbox/.home", "--memory=2g",
            "--entrypoint=bash", self.image, "-eu",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip  # a command line
        output, _ = await process.communicate((relay + script).encode())
        assert process.returncode == code, output.decode()
        return output.decode()

    def rules(self) -> set[str]:
        """The grammar's rows that were answered well."""
        return {answered.rule for answered in self.mirror.answered if answered.status == 200}


@pytest.fixture
async def sandbox(sandbox_image: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    rules = getattr(request, "param", NaiveRules())
    registries = load_registries()
    mirror = NaiveMirror(
        ecosystems=[
            GoModules(registry=registries.go, rules=rules),
            MavenCentral(registry=registries.maven, rules=rules),
        ]
    )
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    (tmp_path / "relay.py").write_text(RELAY)
    runner = web.ServerRunner(web.Server(mirror.answer), shutdown_timeout=0)
    await runner.setup()
    await web.UnixSite(runner, tmp_path / "doors.sock").start()
    (tmp_path / "doors.sock").chmod(0o777)
    yield Sandbox(image=sandbox_image, doors=tmp_path, mirror=mirror)
    await runner.cleanup()


GO_PROGRAM = f"""
go mod init example.test/program 2>/dev/null
cat >main.go <<'PROGRAM'
package main

import (
	"fmt"

	"{UUID}"
)

func main() {{ fmt.Println(uuid.NewSHA1(uuid.NameSpaceDNS, []byte("qila"))) }}
PROGRAM
"""


async def test_go_get_verifies_checksums_and_go_run_runs(sandbox: Sandbox) -> None:
    output = await sandbox.run(
        f"{GO_PROGRAM}go get {UUID}@v1.6.0\ngo run main.go\ncat go.sum go.mod\n"
        "ls -d ~/go/pkg/mod/github.com/google/uuid@v1.6.0\nrm -r ~/go/pkg/mod\n"
    )
    assert "go: added github.com/google/uuid v1.6.0\n" in output
    assert f"{uuid.uuid5(uuid.NAMESPACE_DNS, 'qila')}\n" in output
    assert f"{UUID} v1.6.0 h1:NIvaJDMOsjHA8n1jAhLSgzrAzy1Hgr+hNrb57e+94F0=\n" in output
    assert "127.0.0.1" not in output
    assert sandbox.rules() >= {"go list", "go info", "go mod", "go zip", "go checksum", "go checksum tree"}


async def test_a_module_that_is_not_what_the_checksum_database_says_is_not_used(sandbox: Sandbox) -> None:
    url = f"{load_registries().go.url('proxy')}/{UUID}/@v/v1.6.0.mod"
    sandbox.mirror.kept[url] = Fetched(body=f"module {UUID} // and something else\n".encode())
    output = await sandbox.run(f"{GO_PROGRAM}go get {UUID}@v1.6.0\n", code=1)
    assert "SECURITY ERROR" in output
    assert "added" not in output


async def test_a_module_with_capitals_and_its_dependencies(sandbox: Sandbox) -> None:
    output = await sandbox.run(
        "go mod init example.test/program 2>/dev/null\ngo get github.com/BurntSushi/toml@v1.4.0\ngo list -m all\n"
    )
    assert "github.com/BurntSushi/toml v1.4.0\n" in output


async def test_what_the_door_does_not_have_is_said_where_people_look(sandbox: Sandbox) -> None:
    output = await sandbox.run(f"go mod init example.test/program 2>/dev/null\ngo get {UUID}@master\n", code=1)
    assert "Qila: The Go door has the module proxy's protocol for versions such as v1.2.3 (branches, tags" in output


@pytest.mark.parametrize("sandbox", [RULES], indirect=True)
async def test_package_rules_lead_to_an_older_version_and_to_a_clear_refusal(sandbox: Sandbox) -> None:
    output = await sandbox.run(
        f"go mod init example.test/program 2>/dev/null\ngo get {UUID}\n! go get {UUID}@v1.6.0\ngo get {DENIED}\n",
        code=1,
    )
    assert f"go: added {UUID} v1.5.0\n" in output
    assert f"Qila: The operator's package rules refuse {UUID} v1.6.0: denied." in output
    assert f"Qila: The operator's package rules refuse {DENIED}: denied." in output


POM = """
cat >pom.xml <<'POM'
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>test.example</groupId>
  <artifactId>program</artifactId>
  <version>1</version>
  <repositories>
    <repository><id>rogue</id><url>http://evil.example/maven2</url></repository>
  </repositories>
  <dependencies>
    <dependency><groupId>com.google.code.gson</groupId><artifactId>gson</artifactId><version>[2.11.0,2.12)</version></dependency>
  </dependencies>
</project>
POM
"""
JAVA_PROGRAM = """
cat >Main.java <<'PROGRAM'
import com.google.gson.Gson;

class Main {
    public static void main(String[] arguments) { System.out.println(new Gson().toJson(new int[] {1, 2})); }
}
PROGRAM
"""


async def test_maven_copies_dependencies_that_a_program_runs_with(sandbox: Sandbox) -> None:
    output = await sandbox.run(
        f"{POM}{JAVA_PROGRAM}mvn -q -B dependency:copy-dependencies -DoutputDirectory=deps\n"
        "javac -cp 'deps/*' -d out Main.java\njava -cp 'deps/*:out' Main\n"
        "cd ~/.m2/repository/com/google/code/gson/gson/2.11.0\ncat _remote.repositories\n"
    )
    assert "[1,2]\n" in output
    assert "gson-2.11.0.jar>central=\n" in output
    assert "127.0.0.1" not in output
    assert sandbox.rules() >= {"maven file", "maven checksum", "maven metadata"}


GRADLE_BUILD = """
cat >build.gradle <<'BUILD'
apply plugin: 'java'
apply plugin: 'application'
mainClassName = 'Main'
repositories {
    mavenCentral()
    maven { url 'http://evil.example/maven2' }
}
dependencies { compile 'com.google.code.gson:gson:2.11.0' }
BUILD
echo "rootProject.name = 'program'" >settings.gradle
"""


async def test_gradle_runs_a_program_with_a_dependency(sandbox: Sandbox) -> None:
    output = await sandbox.run(
        f"{GRADLE_BUILD}{JAVA_PROGRAM}mkdir -p src/main/java\nmv Main.java src/main/java\ngradle --no-daemon -q run\n"
    )
    assert "[1,2]\n" in output
    assert "maven file" in sandbox.rules()
    assert all(answered.path.startswith("/maven/") for answered in sandbox.mirror.answered)
