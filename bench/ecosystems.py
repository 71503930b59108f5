"""Per ecosystem: what an exec costs as a program grows, against the package manager and the program typed by hand."""

from __future__ import annotations

from dataclasses import dataclass

from bench.figures import Figure, figure, milliseconds
from bench.mirror import fresh_sandbox
from bench.stack import Stack
from qila.gateway.v1 import gateway_pb2 as pb

CYCLES = 5


@dataclass(frozen=True, kw_only=True)
class Ecosystem:
    """A program, its manifest, that manifest with one more dependency, and what is typed by hand before each run."""

    name: str
    program: str
    source: str
    manifest: str
    requirements: str
    more_requirements: str
    script: str
    tools: str

    # What the source must hold beside, so that by hand too the added dependency is not taken for a needless one.
    use_of_more: tuple[str, str] = ("", "")

    @property
    def changed_source(self) -> str:
        return self.source.replace("one", "two")

    @property
    def source_with_more(self) -> str:
        return self.changed_source.replace(*self.use_of_more) if self.use_of_more[0] else self.changed_source


PYTHON = Ecosystem(
    name="Python",
    program="main.py",
    source="import jinja2, requests, yaml\nprint('one', jinja2.Template('{{ 1 }}').render(), yaml.safe_load('1'))\n",
    manifest="requirements.txt",
    requirements="jinja2\npyyaml\nrequests\n",
    more_requirements="humanize\njinja2\npyyaml\nrequests\n",
    script="test -d .venv || python3 -m venv .venv; "
    ".venv/bin/pip install -q --disable-pip-version-check -r requirements.txt && .venv/bin/python main.py",
    tools="`pip install -r` and `python`",
)
NODE = Ecosystem(
    name="Node",
    program="main.js",
    source="const _ = require('lodash');\nrequire('express');\n"
    "console.log('one', _.sum([1]), require('dayjs')(0).toISOString());\n",
    manifest="package.json",
    requirements='{"private": true, "dependencies": {"dayjs": "^1.11.0", "express": "^5.0.0", "lodash": "^4.17.0"}}\n',
    more_requirements='{"private": true, "dependencies": '
    '{"dayjs": "^1.11.0", "express": "^5.0.0", "lodash": "^4.17.0", "semver": "^7.6.0"}}\n',
    script="npm install --silent && node main.js",
    tools="`npm install` and `node`",
)
GO = Ecosystem(
    name="Go",
    program="main.go",
    source='package main\n\nimport (\n\t"fmt"\n\n\t"github.com/google/uuid"\n\t"gopkg.in/yaml.v3"\n)\n\n'
    'func main() {\n\tout, _ := yaml.Marshal(len(uuid.NewString()))\n\tfmt.Println("one", string(out))\n}\n',
    manifest="go.mod",
    requirements="module example.com/bench\n\ngo 1.24\n\n"
    "require (\n\tgithub.com/google/uuid v1.6.0\n\tgopkg.in/yaml.v3 v3.0.1\n)\n",
    more_requirements="module example.com/bench\n\ngo 1.24\n\n"
    "require (\n\tgithub.com/google/uuid v1.6.0\n\tgithub.com/spf13/pflag v1.0.5\n\tgopkg.in/yaml.v3 v3.0.1\n)\n",
    script="go mod tidy && go run .",
    use_of_more=('\t"gopkg.in', '\t_ "github.com/spf13/pflag"\n\t"gopkg.in'),
    tools="`go mod tidy` and `go run`",
)
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>com.example</groupId>
  <artifactId>bench</artifactId>
  <version>1</version>
  <properties><maven.compiler.release>21</maven.compiler.release></properties>
  <dependencies>
    <dependency><groupId>com.google.code.gson</groupId><artifactId>gson</artifactId><version>2.11.0</version></dependency>
    <!-- more -->
  </dependencies>
</project>
"""
MORE = (
    "<dependency><groupId>org.apache.commons</groupId><artifactId>commons-lang3</artifactId>"
    "<version>3.17.0</version></dependency>"
)
JAVA = Ecosystem(
    name="Java",
    program="src/main/java/Main.java",
    source="import com.google.gson.Gson;\n\npublic class Main {\n"
    '  public static void main(String[] args) {\n    System.out.println("one " + new Gson().toJson(args));\n  }\n}\n',
    manifest="pom.xml",
    requirements=POM,
    more_requirements=POM.replace("<!-- more -->", MORE),
    script="mvn -q -B compile dependency:copy-dependencies && java -cp 'target/classes:target/dependency/*' Main",
    tools="`mvn compile dependency:copy-dependencies` and `java`",
)


def python(stack: Stack) -> list[Figure]:
    return measured(stack, PYTHON)


def node(stack: Stack) -> list[Figure]:
    return measured(stack, NODE)


def go(stack: Stack) -> list[Figure]:
    return measured(stack, GO)


def java(stack: Stack) -> list[Figure]:
    return measured(stack, JAVA)


def measured(stack: Stack, ecosystem: Ecosystem) -> list[Figure]:
    """Both in sandboxes of the same image, through the same mirror, which one cycle of each has warmed."""
    cycle(stack, ecosystem, by_hand=False)
    cycle(stack, ecosystem, by_hand=True)
    pairs = [(cycle(stack, ecosystem, by_hand=False), cycle(stack, ecosystem, by_hand=True)) for _ in range(CYCLES)]
    label = f"{ecosystem.tools}, typed each time in a sandbox"
    return [
        figure(
            f"{ecosystem.name}: {step}",
            [ours[step] for ours, _ in pairs],
            [hand[step] for _, hand in pairs],
            label,
        )
        for step in pairs[0][0]
    ]


def cycle(stack: Stack, ecosystem: Ecosystem, *, by_hand: bool) -> dict[str, float]:
    """Milliseconds of each exec in one new sandbox; making it and uploading are not counted."""
    states = {
        "first exec": (ecosystem.source, ecosystem.requirements),
        "second exec": (ecosystem.source, ecosystem.requirements),
        "exec after one line changed": (ecosystem.changed_source, ecosystem.requirements),
        "exec after one dependency was added": (ecosystem.source_with_more, ecosystem.more_requirements),
    }
    found: dict[str, float] = {}
    before = ("", "")
    with fresh_sandbox(stack) as sandbox_id:
        request = exec_request(ecosystem, sandbox_id, by_hand=by_hand)
        for step, state in states.items():
            if state[0] != before[0]:
                stack.put(sandbox_id, ecosystem.program, state[0].encode())
            if state[1] != before[1]:
                stack.put(sandbox_id, ecosystem.manifest, state[1].encode())
            wanted = not by_hand and state[1] != before[1]
            found[step] = milliseconds(lambda: run(stack, request, installs=wanted))  # noqa: B023 - called at once
            before = state
    return found


def exec_request(ecosystem: Ecosystem, sandbox_id: str, *, by_hand: bool) -> pb.ExecRequest:
    if by_hand:
        command = pb.Command(argv=["bash", "-euc", ecosystem.script])
        return pb.ExecRequest(sandbox_id=sandbox_id, command=command)
    return pb.ExecRequest(sandbox_id=sandbox_id, program=pb.Program(file=ecosystem.program))


def run(stack: Stack, request: pb.ExecRequest, *, installs: bool) -> None:
    size, installed = stack.exec(request)
    if not size or installed is not installs:
        raise SystemExit(f"{size} bytes of output, installed: {installed}, expected: {installs}")
