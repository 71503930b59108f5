"""Each JSON file in tests/cases/resolver/projects is a workspace, all of whose projects are planned.

`same` names, for a directory, the program whose own exec must find the very environment of the project there.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.resolver.errors import (
    LockError,
    ResolverError,
    TargetNotFoundError,
    TargetUnsupportedError,
    UnknownLanguageError,
)
from services.resolver.joined_locks import lock_for, parts_of
from services.resolver.locks import read_all_locks
from services.resolver.model import Context, Lockfile, Options, Plan, Plans, Target, WorkspaceFile
from services.resolver.plan import plan
from services.resolver.projects import plan_all
from services.resolver.selection import select_files

TOOLCHAIN = {
    "python": "3.13.5",
    "node": "24.11.0",
    "npm": "11.6.1",
    "go": "1.27.3",
    "java": "21.0.8",
    "maven": "3.9.9",
}
CONTEXT = Context(toolchain=TOOLCHAIN)
CASES = sorted((Path(__file__).parents[2] / "cases" / "resolver" / "projects").glob("*.json"))


def all_plans(case: dict[str, Any], context: Context = CONTEXT) -> Plans:
    files = {path: str(text).encode() for path, text in case["files"].items()}
    target = Target(**case["target"])
    fields: dict[str, Any] = {name: tuple(value) for name, value in case.get("options", {}).items()}
    listed = [WorkspaceFile(path=path, size=len(raw)) for path, raw in files.items()]
    selected = select_files(listed, target).paths
    return plan_all(
        {path: files[path] for path in selected}, list(files), target, replace(context, options=Options(**fields))
    )


def plan_of(case: dict[str, Any], program: str, context: Context = CONTEXT) -> Plan:
    files = {path: str(text).encode() for path, text in case["files"].items()}
    return plan(files, list(files), Target(program=program), context)


def case_of(name: str) -> dict[str, Any]:
    case: dict[str, Any] = json.loads(next(path for path in CASES if path.stem == name).read_text(encoding="utf-8"))
    return case


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_projects_of_a_workspace(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    expect = case["expect_all"]
    if "error" in expect:
        with pytest.raises(ResolverError) as caught:
            all_plans(case)
        assert (type(caught.value).__name__, vars(caught.value)["path"]) == (expect["error"], expect["path"])
        return
    plans = all_plans(case)
    by_place = {item.project: item for item in plans.projects}
    found: dict[str, Any] = {
        "program": f"{plans.program.ecosystem} {plans.program.project}",
        "projects": [f"{item.ecosystem} {item.project}" for item in plans.projects],
        "notices": [
            f"{item.kind.value.upper()}:{item.subject}"
            for item in plans.program.notices
            if item.kind.value.startswith("projects")
        ],
    }
    if "requirements" in expect:
        found["requirements"] = {
            place: sorted(item.specifier for item in by_place[place].requirements) for place in expect["requirements"]
        }
    assert found == expect
    assert all(item.launch.argv == () for item in plans.projects)
    for place, program in case.get("same", {}).items():
        assert by_place[place].fingerprint == plan_of(case, program).fingerprint, place


def test_the_program_is_planned_as_it_is_alone() -> None:
    case = case_of("four_languages")
    alone = plan_of(case, "backend/main.py")
    assert replace(all_plans(case).program, project="") == alone


def lock_of(ecosystem: str, project: str, *packages: tuple[str, str]) -> dict[str, Any]:
    kinds = {"python": "pypi", "node": "npm", "go": "golang", "java": "maven"}
    return {
        "ecosystem": ecosystem,
        "format": 1,
        "packages": [
            {
                "direct": True,
                "hashes": ["sha256:" + "0" * 64],
                "license": "MIT",
                "name": name,
                "purl": f"pkg:{kinds[ecosystem]}/{name}@{version}",
                "required_by": [],
                "version": version,
            }
            for name, version in packages
        ],
        "project": project,
        "toolchain": {"python": "3.13.5"},
    }


def joined(*locks: dict[str, Any], **changes: Any) -> Lockfile:
    document = {"format": 1, "locks": list(locks)} | changes
    content = json.dumps(document, indent=2, sort_keys=True).encode()
    return Lockfile(name="qila.lock.json", content=content)


TWO = (lock_of("python", "backend", ("requests", "2.31.0")), lock_of("python", "worker", ("redis", "5.0.1")))


def test_each_project_gets_its_part_of_a_lock_of_several() -> None:
    files = {
        "backend/main.py": b"import requests\n",
        "backend/requirements.txt": b"requests\n",
        "worker/main.py": b"import redis\n",
        "worker/requirements.txt": b"redis\n",
    }
    context = replace(CONTEXT, given_lock=joined(*TWO))
    plans = plan_all(files, list(files), Target(program="worker/main.py"), context)
    both = (plans.program, *plans.projects)
    assert [(item.project, item.requirements[0].specifier) for item in both] == [
        ("worker", "redis==5.0.1"),
        ("backend", "requests==2.31.0"),
    ]
    # The line is that of the file which the client gave.
    lines = joined(*TWO).content.decode().splitlines()
    (line,) = plans.program.lock_lines
    assert "pkg:pypi/redis@5.0.1" in lines[line.line - 1]


def test_the_nearest_part_of_a_lock_counts_and_none_is_guessed() -> None:
    lock = joined(*TWO)
    found, notices = lock_for(lock, "python", "worker/jobs/nightly")
    assert found is not None
    assert (b"redis" in found.content, b"requests" in found.content, notices) == (True, False, ())
    nobody, notices = lock_for(lock, "python", "elsewhere")
    assert (nobody, [item.kind.value for item in notices]) == (None, ["lock_not_honoured"])
    assert lock_for(lock, "go", "worker") == (None, ())
    only, _ = lock_for(joined(TWO[0]), "python", "elsewhere")
    assert only is not None


def test_all_packages_of_a_lock_of_several_are_compared() -> None:
    lock = joined(*TWO, lock_of("node", "web", ("express", "4.18.2")))
    assert [item.name for item in read_all_locks([lock], TOOLCHAIN)] == ["requests", "redis", "express"]


@pytest.mark.parametrize(
    ("lock", "line", "reason"),
    [
        (joined(TWO[0], TWO[0]), 25, "there twice"),
        (joined({**TWO[0], "project": "../x"}), 20, "not a directory"),
        (joined({name: value for name, value in TWO[0].items() if name != "project"}), 4, "project is missing"),
        (joined(*TWO, more=1), 1, "keys format and locks"),
        (joined(*TWO, format=2), 1, "format must be 1"),
        (joined(*[lock_of("go", f"p{number}") for number in range(65)]), 1, "at most 64"),
        (Lockfile(name="x", content=b'{"locks": [1], "format": 1}'), 1, "must be an object"),
        (Lockfile(name="x", content=b'{"locks": ['), 1, "is not JSON"),
        (Lockfile(name="x", content=b'{"locks": [], "locks": []}'), 0, "twice in one object"),
    ],
)
def test_a_bad_lock_of_several_is_refused_with_its_line(lock: Lockfile, line: int, reason: str) -> None:
    with pytest.raises(LockError, match=reason) as caught:
        parts_of(lock)
    assert (caught.value.name, caught.value.line) == (lock.name, line)


def test_a_lock_whose_empty_lines_would_fill_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = joined(*[lock_of("go", f"p{number}") for number in range(64)])
    padded = replace(lock, content=lock.content.replace(b'"locks": [', b'"locks": [' + b"\n" * 10_000))
    monkeypatch.setattr("services.resolver.joined_locks.MAX_PARTS_BYTES", 10 * len(padded.content))
    with pytest.raises(LockError, match="too many lines"):
        parts_of(padded)
    assert len(parts_of(lock)) == 64


MODULE = {"demo/Main.java": b"package demo; class Main { public static void main(String[] a) {} }", "demo/Main.py": b""}


def test_the_language_that_is_asked_for_decides_whose_module_it_is() -> None:
    found = {
        language: plan(MODULE, list(MODULE), Target(module="demo.Main", required_language=language), CONTEXT).ecosystem
        for language in ("", "python", "java")
    }
    assert found == {"": "python", "python": "python", "java": "java"}
    # What the sandbox was made for counts less.
    both = Target(module="demo.Main", language="java", required_language="python")
    assert plan(MODULE, list(MODULE), both, CONTEXT).ecosystem == "python"


def test_a_language_that_cannot_run_the_program_is_refused() -> None:
    with pytest.raises(UnknownLanguageError) as unknown:
        plan(MODULE, list(MODULE), Target(required_language="cobol"), CONTEXT)
    assert unknown.value.known == ("python", "node", "go", "java")
    with pytest.raises(TargetUnsupportedError, match=r"demo/Main\.py: no program of go"):
        plan(MODULE, list(MODULE), Target(program="./demo/Main.py", required_language="go"), CONTEXT)
    with pytest.raises(TargetNotFoundError, match="no such module of node"):
        plan(MODULE, list(MODULE), Target(module="demo.Main", required_language="node"), CONTEXT)
