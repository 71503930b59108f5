"""go, mvn and gradle as people type them: in the sandbox image, without a network, through doors to the registries."""

import dataclasses
import uuid
from collections.abc import Iterator

import pytest
from doors_harness import Workplace  # type: ignore[import-not-found]  # pytest puts this directory on the path
from sandboxd_harness import LIMITS, Sandbox  # type: ignore[import-not-found]  # as above

from services.executor.egress.registries import load_registries

pytestmark = [pytest.mark.docker, pytest.mark.timeout(400)]

UUID = "github.com/google/uuid"
DENIED = "github.com/pkg/errors"
PARTLY_DENIED = "github.com/davecgh/go-spew"
RULES = f'[go]\ndeny = ["{DENIED}", "{PARTLY_DENIED}==v1.1.1"]\n'


@pytest.fixture(scope="module")
def opened(sandbox_image: str) -> Iterator[Workplace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QILA_TEST_IMAGE", sandbox_image)
        limits = dataclasses.replace(LIMITS, memory_bytes=2 << 30)
        with Sandbox(limits=limits) as sandbox, Workplace(sandbox, rules=RULES) as made:
            yield made


@pytest.fixture
def place(opened: Workplace) -> Workplace:
    """Without a record of an earlier test."""
    opened.forget()
    return opened


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


@pytest.mark.parametrize("user", ["program", "install"])
def test_go_get_verifies_checksums_and_go_run_runs(user: str, place: Workplace) -> None:
    output = place.run(
        f"{GO_PROGRAM}go get {UUID}@v1.6.0\ngo run main.go\ncat go.sum go.mod\n"
        "ls -d ~/go/pkg/mod/github.com/google/uuid@v1.6.0\nrm -r ~/go/pkg/mod\n",
        user=user,
    )
    assert "go: added github.com/google/uuid v1.6.0\n" in output
    assert f"{uuid.uuid5(uuid.NAMESPACE_DNS, 'qila')}\n" in output
    assert f"{UUID} v1.6.0 h1:NIvaJDMOsjHA8n1jAhLSgzrAzy1Hgr+hNrb57e+94F0=\n" in output
    assert "127.0.0.1" not in output
    assert place.rules >= {"go list", "go info", "go mod", "go zip", "go checksum", "go checksum tree"}
    asker = (1000, "RUN") if user == "program" else (1001, "INSTALL")
    assert {(record.uid, record.phase) for record in place.records} == {asker}
    # Whether the checksum database can be had, the door says by itself.
    asked = {record.host for record in place.records if record.rule != "go checksums supported"}
    assert asked == {load_registries().go.origins["proxy"].host}


def test_a_module_with_capitals_and_its_dependencies(place: Workplace) -> None:
    output = place.run(
        "go mod init example.test/program 2>/dev/null\ngo get github.com/BurntSushi/toml@v1.4.0\ngo list -m all\n"
    )
    assert "github.com/BurntSushi/toml v1.4.0\n" in output


def test_what_the_door_does_not_have_is_said_where_people_look(place: Workplace) -> None:
    output = place.run(f"go mod init example.test/program 2>/dev/null\ngo get {UUID}@master\n", code=1)
    assert "Qila: The Go door has the module proxy's protocol for versions such as v1.2.3 (branches, tags" in output


def test_package_rules_lead_to_an_older_version_and_to_a_clear_refusal(place: Workplace) -> None:
    output = place.run(
        f"go mod init example.test/program 2>/dev/null\ngo get {PARTLY_DENIED}\n! go get {PARTLY_DENIED}@v1.1.1\n"
        f"go get {DENIED}\n",
        code=1,
    )
    assert f"go: added {PARTLY_DENIED} v1.1.0\n" in output
    refused = "Qila: The operator's package rules refuse"
    assert f"{refused} {PARTLY_DENIED} v1.1.1: denied by '{PARTLY_DENIED}==v1.1.1'." in output
    assert f"{refused} {DENIED}: denied by '{DENIED}'." in output
    assert f"policy: {DENIED}: denied by '{DENIED}'" in {rule for *_, rule in place.refused}


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


def test_maven_copies_dependencies_that_a_program_runs_with(place: Workplace) -> None:
    output = place.run(
        f"{POM}{JAVA_PROGRAM}mvn -q -B dependency:copy-dependencies -DoutputDirectory=deps\n"
        "javac -cp 'deps/*' -d out Main.java\njava -cp 'deps/*:out' Main\n"
        "cd ~/.m2/repository/com/google/code/gson/gson/2.11.0\ncat _remote.repositories\n"
    )
    assert "[1,2]\n" in output
    assert "gson-2.11.0.jar>central=\n" in output
    assert "127.0.0.1" not in output
    assert place.rules >= {"maven file", "maven checksum", "maven metadata"}


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


def test_gradle_runs_a_program_with_a_dependency(place: Workplace) -> None:
    output = place.run(
        f"{GRADLE_BUILD}{JAVA_PROGRAM}mkdir -p src/main/java\nmv Main.java src/main/java\ngradle --no-daemon -q run\n"
    )
    assert "[1,2]\n" in output
    assert "maven file" in place.rules
    assert all(record.path.startswith("/maven/") for record in place.records)
