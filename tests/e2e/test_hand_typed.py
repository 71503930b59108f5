"""Package managers as people type them into a sandbox, through all services to the real registries."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

import pytest

from services.executor.egress.registries import load_registries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Installation

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

REGISTRIES = load_registries()
GO_PROGRAM = """package main

import (
	"fmt"

	"github.com/google/uuid"
)

func main() { fmt.Println(uuid.NewSHA1(uuid.NameSpaceDNS, []byte("qila"))) }
"""
# Maven fetches the extension of a build by itself. What copies an artefact is a plugin of a hundred files.
POM = """<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>test.example</groupId>
  <artifactId>program</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <build><extensions><extension>
    <groupId>com.google.code.gson</groupId><artifactId>gson</artifactId><version>2.11.0</version>
  </extension></extensions></build>
</project>
"""


class Typist:
    """Types commands into one sandbox, and reads what the doors decided."""

    def __init__(self, installation: Installation, sandbox: str) -> None:
        self._installation = installation
        self._sandbox = sandbox

    def type(self, script: str) -> str:
        """What a command prints; its failure fails the test."""
        ended = self._installation.qila("exec", "--quiet", self._sandbox, "--", "bash", "-euc", script)
        assert ended.returncode == 0, (ended.stdout + ended.stderr).decode()
        return ended.stdout.decode()

    def asked(self, door: str) -> list[dict[str, str]]:
        """What was asked for at one door."""
        ended = self._installation.qila("egress", "--json", self._sandbox)
        assert ended.returncode == 0, ended.stderr.decode()
        rows = [json.loads(line) for line in ended.stdout.splitlines()]
        return [row for row in rows if row["path"].startswith(f"/{door}/")]


@pytest.fixture(scope="module")
def typist(installation: Installation) -> Iterator[Typist]:
    created = installation.qila("create")
    assert created.returncode == 0, created.stderr.decode()
    sandbox = created.stdout.decode().strip()
    yield Typist(installation, sandbox)
    assert installation.qila("rm", sandbox).returncode == 0


def check(rows: list[dict[str, str]], *, host: str, artefact: str) -> None:
    """The program asked, at this host alone, was never refused, and got the artefact."""
    assert {(row["phase"], row["verdict"]) for row in rows} == {("EGRESS_PHASE_RUN", "EGRESS_VERDICT_ALLOWED")}
    assert {row["host"] for row in rows} == {host}
    assert artefact in {row["path"].rpartition("/")[2] for row in rows}


def test_pip(typist: Typist) -> None:
    typist.type("pip install -q six==1.17.0")
    assert typist.type("python3 -c 'import six; print(six.__version__)'") == "1.17.0\n"
    rows = typist.asked("pypi")
    index = [row for row in rows if row["path"] == "/pypi/simple/six/"]
    files = [row for row in rows if row not in index]
    check(index, host=REGISTRIES.pypi.origins["index"].host, artefact="")
    check(files, host=REGISTRIES.pypi.origins["files"].host, artefact="six-1.17.0-py2.py3-none-any.whl")


def test_npm(typist: Typist) -> None:
    typed = (
        "mkdir node; cd node; npm install left-pad@1.3.0 >log; node -e 'console.log(require(\"left-pad\")(1, 3, 0))'"
    )
    assert typist.type(typed) == "001\n"
    check(typist.asked("npm"), host=REGISTRIES.npm.origins["registry"].host, artefact="left-pad-1.3.0.tgz")


def test_go(typist: Typist) -> None:
    typed = f"mkdir go; cd go; cat >main.go <<'E'\n{GO_PROGRAM}E\ngo mod init example.test/p; go mod tidy; go run ."
    assert typist.type(typed) == f"{uuid.uuid5(uuid.NAMESPACE_DNS, 'qila')}\n"
    rows = typist.asked("go")
    assert {"go checksum", "go checksum tree"} <= {row["rule"] for row in rows}
    # Go asks for the directories above a module as well, which are none.
    rows = [row for row in rows if row["path"].startswith("/go/github.com/google/uuid/")]
    check(rows, host=REGISTRIES.go.origins["proxy"].host, artefact="v1.6.0.zip")


def test_maven(typist: Typist) -> None:
    fetched = "~/.m2/repository/com/google/code/gson/gson/2.11.0"
    typed = f"mkdir java; cd java; cat >pom.xml <<'E'\n{POM}E\nmvn -q -B validate; ls {fetched}"
    assert "gson-2.11.0.jar\n" in typist.type(typed)
    check(typist.asked("maven"), host=REGISTRIES.maven.origins["central"].host, artefact="gson-2.11.0.jar")
