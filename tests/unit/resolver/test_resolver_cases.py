"""Each JSON file below tests/cases/resolver with `files` and `expect` is a case: a new one needs no code.

Beside those it may hold `target` (fields of Target), `options` (fields of Options), `given_lock` (name and content),
`toolchain`, and `answer`: to the question of a first plan, which must be preliminary.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from services.resolver.errors import ResolverError
from services.resolver.model import Context, Lockfile, Options, Plan, Target, WorkspaceFile
from services.resolver.plan import plan
from services.resolver.selection import select_files

CASES = sorted((Path(__file__).parents[2] / "cases" / "resolver").rglob("*.json"))
PLAN_CASES = [path for path in CASES if "expect" in json.loads(path.read_text(encoding="utf-8"))]
TOOLCHAIN = {
    "python": "3.13.5",
    "node": "24.11.0",
    "npm": "11.6.1",
    "go": "1.27.3",
    "java": "21.0.8",
    "maven": "3.9.9",
    "gradle": "4.4.1",
}
CONTEXT = Context(toolchain=TOOLCHAIN)


def content(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if "base64" in value:
        return base64.b64decode(str(value["base64"]))
    text, times = value["repeat"]
    return str(value["before"] + text * times).encode()


def fields_of(value: dict[str, Any]) -> dict[str, Any]:
    """The fields of one of the core's dataclasses; lists are tuples there."""
    return {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}


def lockfile_of(value: dict[str, Any]) -> Lockfile:
    return Lockfile(name=value["name"], content=content(value["content"]))


def plan_case(case: dict[str, Any]) -> Plan:
    files = {path: content(value) for path, value in case["files"].items()}
    target = Target(**fields_of(case.get("target", {})))
    context = Context(
        toolchain=TOOLCHAIN | case.get("toolchain", {}),
        given_lock=lockfile_of(case["given_lock"]) if "given_lock" in case else None,
        options=Options(**fields_of(case.get("options", {}))),
    )
    listed = [WorkspaceFile(path=path, size=len(raw)) for path, raw in files.items()]
    selected = select_files(listed, target).paths
    planned = plan({path: files[path] for path in selected}, list(files), target, context)
    if "answer" not in case:
        return planned
    assert planned.preliminary
    answered = replace(context, answers={planned.fingerprint: json.dumps(case["answer"]).encode()})
    return plan({path: files[path] for path in selected}, list(files), target, answered)


@pytest.mark.parametrize("path", PLAN_CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text(encoding="utf-8"))
    expect = case["expect"]
    if "error" in expect:
        with pytest.raises(ResolverError) as caught:
            plan_case(case)
        facts = {"type": type(caught.value).__name__} | {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(caught.value).items()
        }
        assert {name: facts[name] for name in expect["error"]} == expect["error"], str(caught.value)
        return
    planned = plan_case(case)
    found = observed(planned, expect)
    assert found == expect, planned


def observed(planned: Plan, expect: dict[str, Any]) -> dict[str, Any]:
    """What the plan says about each thing that the case expects something of."""
    notices = [f"{item.kind.value.upper()}:{item.subject}" for item in planned.notices]
    if not any(name.startswith("ALIAS") for name in expect.get("notices", ())):
        notices = [name for name in notices if not name.startswith("ALIAS")]
    staged = {file.path: file.content.decode() for file in planned.staged}
    facts: dict[str, Any] = {
        "requirements": sorted(item.specifier for item in planned.requirements),
        "source": planned.source.value,
        "preliminary": planned.preliminary,
        "manifests": list(planned.manifests),
        "steps": [step.kind.value for step in planned.steps],
        "launch": list(planned.launch.argv),
        "env": {name: value for name, value in planned.launch.env.items() if not name.endswith("_ENV")},
        "fingerprint": "full" if planned.fingerprint else "empty",
        "staged": sorted(staged),
        "staged_contains": {
            path: text if text in staged.get(path, "") else staged.get(path)
            for path, text in expect.get("staged_contains", {}).items()
        },
        "undeclared": sorted({item.module for item in planned.undeclared}),
        "declarations": {item.module: item.declaration for item in planned.undeclared if item.declaration},
        "notes": {item.module: item.note for item in (*planned.undeclared, *planned.unknown) if item.note},
        "unknown": [item.module for item in planned.unknown],
        "optional": [item.module for item in planned.optional_skipped],
        "notices": notices,
        "notice_lines": {
            item.kind.value.upper(): item.line
            for item in planned.notices
            if item.kind.value.upper() in expect.get("notice_lines", {})
        },
        "lock_lines": [f"{item.path}:{item.line}: {item.name} {item.version}" for item in planned.lock_lines],
        "lines": {
            item.name: item.origins[0].line for item in planned.requirements if item.name in expect.get("lines", {})
        },
    }
    return {name: facts[name] for name in expect}


def test_a_plan_has_all_that_an_install_needs() -> None:
    planned = plan({"main.py": b"import requests\n"}, ["main.py"], Target(), CONTEXT)
    document = asdict(planned)
    assert planned.environment == f"/sandbox/.qila/env/python/{planned.fingerprint}"
    assert planned.launch.env["QILA_PYTHON_ENV"] == planned.environment
    assert f"{planned.environment}/lib" in document["steps"][1]["argv"]
    assert document["steps"][1]["argv"][-1] == planned.native_lock
    assert planned.steps[0].argv[-1] == planned.staged[0].path
    assert planned.native_lock in planned.steps[0].argv
    assert [(link.path, link.directory) for link in planned.links] == [("deps", "lib")]
    assert planned.inventory_argv[-1] == f"{planned.environment}/lib"


def fingerprint_with(**options: Any) -> str:
    project = (
        '[project]\nname = "x"\ndependencies = ["requests"]\n[project.optional-dependencies]\na = ["six"]\n'
        '[dependency-groups]\ng = ["tqdm"]\n'
    )
    files = {"main.py": b"import yaml\nimport requests\n", "pyproject.toml": project.encode()}
    return plan(files, list(files), Target(), Context(toolchain=TOOLCHAIN, options=Options(**options))).fingerprint


def test_all_that_decides_an_install_is_in_the_fingerprint() -> None:
    chosen: list[dict[str, Any]] = [
        {},
        {"install_missing": True},
        {"added": ("rich",)},
        {"added": ("rich>=1",)},
        {"extras": ("a",)},
        {"groups": ("g",)},
        {"scripts": False},
    ]
    assert len({fingerprint_with(**options) for options in chosen}) == len(chosen)
    assert fingerprint_with(added=("requests",)) == fingerprint_with()
