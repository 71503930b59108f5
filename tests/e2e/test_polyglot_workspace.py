"""A workspace of four languages with four manifests: everything installed at once, locked, and made again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from tests.e2e.conftest import Installation
    from tests.e2e.workbench import Told, Workbench

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]
PYTHON, NODE, GO, JAVA = "backend/main.py", "frontend/index.js", "tool/main.go", "service/src/main/java/demo/Main.java"
POM = """<project><modelVersion>4.0.0</modelVersion><groupId>demo</groupId><artifactId>service</artifactId>
<version>1</version><dependencies><dependency><groupId>com.google.code.gson</groupId><artifactId>gson</artifactId>
<version>2.10.1</version></dependency></dependencies></project>"""
FILES = {
    PYTHON: "import idna\nprint('python', idna.encode('qila.example').decode())\n",
    "backend/requirements.txt": "idna\n",
    NODE: "console.log('node', require('ms')('2 days'))\n",
    "frontend/package.json": '{"name": "frontend", "dependencies": {"ms": "^2.1.0"}, "devDependencies": {"vite": "5"}}',
    GO: 'package main\n\nimport (\n\t"fmt"\n\n\t"github.com/google/uuid"\n)\n\n'
    'func main() { fmt.Println("go", uuid.Nil) }\n',
    "tool/go.mod": "module demo/tool\n\ngo 1.21\n\nrequire github.com/google/uuid v1.6.0\n",
    "tool/go.sum": "github.com/google/uuid v1.6.0 h1:NIvaJDMOsjHA8n1jAhLSgzrAzy1Hgr+hNrb57e+94F0=\n"
    "github.com/google/uuid v1.6.0/go.mod h1:TIyPZe4MgqvfeYDBFedMoGGpEw/LqOeaOT+nhxU+yHo=\n",
    JAVA: "package demo;\n\nimport com.google.gson.Gson;\n\npublic class Main {\n"
    '  public static void main(String[] a) { System.out.println("java " + new Gson().toJson(new int[] {1})); }\n}\n',
    "service/pom.xml": POM,
}
SAYS = {
    PYTHON: "python qila.example\n",
    NODE: "node 172800000\n",
    GO: "go 00000000-0000-0000-0000-000000000000\n",
    JAVA: "java [1]\n",
}
PURLS = ("pkg:pypi/idna@", "pkg:npm/ms@", "pkg:golang/github.com/google/uuid@", "pkg:maven/com.google.code.gson/gson@")
ALL = [("backend", "python"), ("frontend", "node"), ("service", "java"), ("tool", "go")]


def purls_of(lock: bytes) -> list[str]:
    return sorted(package["purl"] for item in json.loads(lock)["locks"] for package in item["packages"])


def plans_of(told: Told) -> list[tuple[str, str]]:
    return sorted(
        (event.plan_made.project, event.plan_made.ecosystem) for event in told.events if event.HasField("plan_made")
    )


def reference(sandbox: str, exec_id: str) -> pb.LockReference:
    return pb.LockReference(exec=pb.ExecReference(sandbox_id=sandbox, exec_id=exec_id))


def test_everything_is_installed_from_one_program_and_made_again_from_its_lock(workbench: Workbench) -> None:
    sandbox = workbench.sandbox(FILES)
    first = workbench.run(sandbox, PYTHON, install_all=True)
    assert (first.ended.exited, first.output()) == (0, SAYS[PYTHON]), first.everything()
    assert ("INSTALL", 0) in first.phases
    assert plans_of(first) == ALL
    installing = {
        event.project for event in first.events if event.WhichOneof("event") in {"package", "stage", "output"}
    }
    assert installing - {""} == {name for name, _ in ALL}, first.everything()
    for file, said in SAYS.items():
        told = workbench.run(sandbox, file)
        assert (told.ended.exited, told.output()) == (0, said), told.everything()
        assert ("INSTALL", 0) not in told.phases, file
    again = workbench.run(sandbox, GO, install_all=True)
    assert (again.output(), ("INSTALL", 0) in again.phases) == (SAYS[GO], False), again.everything()

    answer = workbench.client.lock(sandbox, first.exec_id)
    assert sorted((item.project, item.ecosystem) for item in answer.projects) == ALL
    assert answer.native_lock_name == "pylock.toml"
    purls = purls_of(answer.lock)
    assert [any(purl.startswith(start) for purl in purls) for start in PURLS] == [True] * 4
    assert workbench.client.lock(sandbox, again.exec_id).lock == answer.lock
    document = json.loads(workbench.client.sbom(sandbox, first.exec_id))
    assert set(purls) <= {item["purl"] for item in document["components"] if "purl" in item}

    # Without its lock, this would have other versions of two of them.
    loose = FILES | {"service/pom.xml": POM.replace("2.10.1", "2.9.0"), "backend/requirements.txt": "idna<3.5\n"}
    copy = workbench.sandbox(loose, pb.Lockfile(name="qila.lock.json", content=answer.lock))
    made = workbench.run(copy, NODE, install_all=True)
    assert made.output() == SAYS[NODE], made.everything()
    assert purls_of(workbench.client.lock(copy, made.exec_id).lock) == purls
    same = workbench.client.diff(reference(sandbox, first.exec_id), reference(copy, made.exec_id))
    assert (list(same.changes), same.unchanged_count) == ([], len(purls))

    other = workbench.sandbox(loose)
    changed = workbench.run(other, PYTHON, install_all=True)
    found = workbench.client.diff(reference(sandbox, first.exec_id), reference(other, changed.exec_id))
    assert sorted(item.after.name for item in found.changes) == ["com.google.code.gson:gson", "idna"]


def test_project_that_cannot_be_installed_is_named_and_the_rest_still_runs(
    workbench: Workbench, installation: Installation
) -> None:
    broken = FILES | {"frontend/package.json": '{"dependencies": {"qila-no-such-package-of-anybody": "1"}}'}
    sandbox = workbench.sandbox(broken)
    failed = installation.qila("exec", "--install-all", sandbox, PYTHON)
    said = failed.stderr.decode()
    assert failed.returncode != 0
    assert "project frontend (node)" in said
    assert "qila-no-such-package-of-anybody" in said
    told = workbench.run(sandbox, PYTHON)
    assert (told.output(), ("INSTALL", 0) in told.phases) == (SAYS[PYTHON], False), told.everything()


def test_language_decides_whose_module_it_is(workbench: Workbench, installation: Installation) -> None:
    files = {"demo/Main.py": "print('python')\n", "demo/Main.java": "package demo;\n" + FILES[JAVA].split("\n\n")[-1]}
    files["demo/Main.java"] = files["demo/Main.java"].replace("new Gson().toJson(new int[] {1})", '"[1]"')
    sandbox = workbench.sandbox(files)
    outputs = [
        installation.qila("exec", "--quiet", "--module", "demo.Main", *options, sandbox).stdout.decode()
        for options in ((), ("--language", "python"), ("--language", "java"))
    ]
    assert outputs == ["python\n", "python\n", "java [1]\n"]
    refused = installation.qila("exec", "--module", "demo.Main", "--language", "cobol", sandbox)
    assert "there are python, node, go, java" in refused.stderr.decode()
