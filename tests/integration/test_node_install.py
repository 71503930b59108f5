"""Node packages as Qila installs them: in a real sandbox of the shipped image, through the npm door, found again."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doors_harness import Workplace  # type: ignore[import-not-found]  # pytest puts this directory on the path
from sandboxd_harness import Sandbox  # type: ignore[import-not-found]  # as above

from services.resolver.install import environment_path
from services.resolver.lockfile import lock_to_json
from services.resolver.model import FailureReason, InstallFailure, Lockfile, PackageEvent, StepKind
from services.resolver.node.failures import explain_failure
from services.resolver.node.installer import given_lock_files, install_commands
from services.resolver.node.lock import locked_packages, verify_install
from services.resolver.node.progress import parse_installer_line

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

RULES = '[npm]\ndeny = ["is-number"]\n'
TOOLCHAIN = {"node": "24"}
STAGE = "/sandbox/.qila/stage/ex"
LOCKS = Path(__file__).resolve().parents[1] / "cases/node_locks"


@pytest.fixture(scope="module")
def place(sandbox_image: str) -> Iterator[Workplace]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QILA_TEST_IMAGE", sandbox_image)
        with Sandbox() as sandbox, Workplace(sandbox, rules=RULES) as made:
            yield made


@dataclass(frozen=True, kw_only=True)
class Installed:
    """One generation: what the steps printed, the native lock and the inventory."""

    environment: str
    output: str
    native_lock: bytes
    inventory: bytes

    def qila_lock(self, *direct: str) -> bytes:
        verify_install(self.native_lock, self.inventory, TOOLCHAIN)
        return lock_to_json("node", locked_packages(direct, self.native_lock, self.inventory, TOOLCHAIN), TOOLCHAIN)

    def packages(self) -> dict[str, str]:
        rows = json.loads(self.inventory)["packages"]
        return {row["location"].removeprefix("node_modules/"): row["version"] for row in rows}


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


class Installs:
    """Does what the gateway does, with one name for each environment."""

    def __init__(self, place: Workplace) -> None:
        self.place = place

    def steps(self, name: str, package_json: object = None, **options: Any) -> tuple[str, list[str], Any]:
        defaults: dict[str, Any] = {"lock": None, "previous_lock": None, "scripts": True, "frozen": False}
        content = package_json if isinstance(package_json, bytes) else json.dumps(package_json or {}).encode()
        environment = environment_path("node", name)
        commands = install_commands(environment, package_json=content, **(defaults | options))
        lines = [f"rm -rf {STAGE} {environment}; mkdir -p {STAGE}; cd {STAGE}"]
        lines += [f"echo {encoded(file.content)} | base64 -d > {file.path}" for file in commands.staged]
        lines += [f"NO_COLOR=1 {shlex.join(step.argv)}" for step in commands.steps]
        return environment, lines, commands

    def install(self, name: str, package_json: object = None, **options: Any) -> Installed:
        environment, lines, commands = self.steps(name, package_json, **options)
        output = self.place.run("\n".join(lines), user="install")
        native_lock = self.place.run(f"cat {STAGE}/{commands.native_lock}", user="install").encode()
        inventory = self.place.run(shlex.join(commands.inventory_argv)).encode()
        link = f"mkdir -p /sandbox/.qila/current; ln -sfn ../env/node/{name} /sandbox/.qila/current/node"
        self.place.run(link, user="install")
        return Installed(environment=environment, output=output, native_lock=native_lock, inventory=inventory)

    def fail(self, package_json: object = None, **options: Any) -> InstallFailure:
        """Why it failed, from the output of the step that did."""
        _, lines, commands = self.steps("failing", package_json, **options)
        count = len(commands.steps)
        self.place.run("\n".join(lines[:-count]), user="install")
        for step, line in zip(commands.steps, lines[-count:], strict=True):
            script = f"cd {STAGE}; code=0; {line} 2>&1 || code=$?; echo code=$code"
            output, _, code = self.place.run(script, user="install").rpartition("code=")
            if int(code):
                return explain_failure(step.kind, int(code), output.encode())
        raise AssertionError("nothing failed")


@pytest.fixture(scope="module")
def installs(place: Workplace) -> Installs:
    return Installs(place)


def lockfile(name: str) -> Lockfile:
    return Lockfile(name="yarn.lock" if name == "berry.lock" else name, content=(LOCKS / name).read_bytes())


DIRECT = ("debug@4.3.4", "ms@^2.0.0", "lp@npm:left-pad@1.2.0")
PACKAGES = {"debug": "4.3.4", "debug/node_modules/ms": "2.1.2", "lp": "1.2.0", "ms": "2.0.0"}


def test_solves_installs_and_comes_back_from_its_own_lock(installs: Installs) -> None:
    manifest = {"scripts": {"postinstall": "exit 9"}, "dependencies": {"debug": "4.3.4", "esbuild": "0.28.2"}}
    made = installs.install("solved", manifest)
    events = [parse_installer_line(StepKind.INSTALL, line) for line in made.output.encode().splitlines()]
    packages = {(event.action, event.name, event.version) for event in events if isinstance(event, PackageEvent)}
    for action in ("downloading", "installed", "building", "built"):
        assert (action, "esbuild", "0.28.2") in packages
    assert b"127.0.0.1" not in made.native_lock
    lock = made.qila_lock("debug@4.3.4", "esbuild@0.28.2")
    given = Lockfile(name="qila.lock.json", content=lock)
    package_json, _ = given_lock_files(given)
    again = installs.install("again", package_json, lock=given, frozen=True)
    assert again.qila_lock("debug@4.3.4", "esbuild@0.28.2") == lock
    executable = f"{again.environment}/node_modules/.bin/esbuild --version"
    assert installs.place.run(executable) == "0.28.2\n"


def test_one_more_package_is_all_that_the_registry_is_asked_for(installs: Installs) -> None:
    manifest = {"dependencies": {"debug": "4.3.4"}}
    first = installs.install("first", manifest)
    installs.place.forget()
    manifest["dependencies"]["once"] = "1.4.0"
    second = installs.install("more", manifest, previous_lock=first.native_lock)
    assert second.packages() == first.packages() | {"once": "1.4.0", "wrappy": "1.0.2"}
    asked = {record.path.removeprefix("/npm/").partition("/")[0] for record in installs.place.records}
    assert asked == {"once", "wrappy"}
    assert b"127.0.0.1" not in second.native_lock
    lock = Lockfile(name="package-lock.json", content=second.native_lock)
    again = installs.install("exactly", given_lock_files(lock)[0], lock=lock, frozen=True)
    assert again.qila_lock("debug@4.3.4") == second.qila_lock("debug@4.3.4")
    assert b"127.0.0.1" not in again.native_lock


def test_the_locks_of_all_tools_lead_to_the_same_packages(installs: Installs) -> None:
    package_json = (LOCKS / "package.json").read_bytes()
    locks = set()
    for name in ("yarn.lock", "berry.lock", "pnpm-lock.yaml"):
        made = installs.install("foreign", package_json, lock=lockfile(name), frozen=True)
        assert made.packages() == PACKAGES
        locks.add(made.qila_lock(*DIRECT))
    npm = Lockfile(name="package-lock.json", content=made.native_lock)
    by_npm = installs.install("npm", given_lock_files(npm)[0], lock=npm, frozen=True)
    locks.add(by_npm.qila_lock(*DIRECT))
    assert len(locks) == 1


@pytest.mark.parametrize("name", ["yarn.lock", "pnpm-lock.yaml"])
def test_a_lock_that_the_manifest_left_behind_keeps_its_versions(name: str, installs: Installs) -> None:
    manifest = json.loads((LOCKS / "package.json").read_bytes())
    manifest["dependencies"]["once"] = "1.4.0"
    made = installs.install("drifted", manifest, lock=lockfile(name))
    assert made.packages() == PACKAGES | {"once": "1.4.0", "wrappy": "1.0.2"}
    made.qila_lock(*DIRECT, "once@1.4.0")


def test_install_scripts_run_only_where_they_may(installs: Installs) -> None:
    made = installs.install("unscripted", {"dependencies": {"core-js": "3.30.0"}}, scripts=False)
    assert "Install scripts that did not run: core-js@3.30.0" in made.output
    assert "Building" not in made.output


def test_a_project_cannot_redirect_its_install(installs: Installs) -> None:
    elsewhere = "registry=http://127.0.0.1:9/\\n@scope:registry=http://127.0.0.1:9/"
    installs.place.run(f"printf '{elsewhere}' | tee ~/.npmrc", user="install")
    installs.place.run(
        f"printf '{elsewhere}' > /sandbox/.npmrc; echo '{{\"workspaces\": [\".qila/**\"]}}' > /sandbox/package.json"
    )
    made = installs.install("steadfast", {"dependencies": {"left-pad": "1.3.0"}})
    installs.place.run("rm ~/.npmrc", user="install")
    installs.place.run("rm /sandbox/.npmrc /sandbox/package.json")
    assert made.packages() == {"left-pad": "1.3.0"}


def npm_lock(version: str, integrity: str) -> Lockfile:
    entry = {"version": version, "integrity": integrity}
    packages = {"": {"dependencies": {"left-pad": "^1.1.0"}}, "node_modules/left-pad": entry}
    return Lockfile(name="package-lock.json", content=json.dumps({"lockfileVersion": 3, "packages": packages}).encode())


OTHER = "sha512-" + "A" * 86 + "=="


@pytest.mark.parametrize(
    ("reason", "package", "manifest", "lock"),
    [
        (FailureReason.NOT_FOUND, "qila-no-such-package-xyz", {"qila-no-such-package-xyz": "1"}, None),
        (FailureReason.NO_SOLUTION, "left-pad", {"left-pad": "99"}, None),
        (FailureReason.NETWORK_DENIED, "is-number", {"is-number": "7"}, None),
        (FailureReason.NO_SOLUTION, "react-dom", {"react": "17.0.2", "react-dom": "18.2.0"}, None),
        (FailureReason.NO_SOLUTION, "left-pad", {"left-pad": "^1.1.0"}, npm_lock("1.2.0", OTHER)),
        (FailureReason.NO_SOLUTION, "left-pad", {"left-pad": "^1.3.0"}, npm_lock("1.2.0", OTHER)),
    ],
    ids=["unknown", "impossible", "refused", "peers", "hash", "drift"],
)
def test_failures_have_a_reason_and_a_package(
    reason: FailureReason, package: str, manifest: object, lock: Lockfile | None, installs: Installs
) -> None:
    failure = installs.fail({"dependencies": manifest}, lock=lock, frozen=lock is not None)
    assert failure.reason is reason, failure.detail
    assert package in failure.packages
    assert "npm error" in failure.detail


def test_a_lock_of_other_tools_with_another_hash_names_the_package(installs: Installs) -> None:
    lock = lockfile("pnpm-lock.yaml").content.replace(b"sha512-Tpp6", b"sha512-AAAA")
    failure = installs.fail(
        (LOCKS / "package.json").read_bytes(), lock=Lockfile(name="pnpm-lock.yaml", content=lock), frozen=True
    )
    assert (failure.reason, failure.packages) == (FailureReason.NO_SOLUTION, ("ms",))
    assert failure.detail.startswith("lock: ms@2.0.0: the lock says sha512-AAAA")


ESM = """import express from 'express'; import { createRequire } from 'node:module';
console.log('esm', express === createRequire(import.meta.url)('express'), import.meta.resolve('express'));
"""
CJS = """const express = require('express');
console.log('cjs', typeof express, require.resolve('express/package.json'));
import('express').then((module) => console.log('same', module.default === express));
try { require('no-such') } catch (error) { console.log(error.code) }
"""
WORKER = """import { Worker, isMainThread } from 'node:worker_threads'; import { fork } from 'node:child_process';
import express from 'express';
if (!isMainThread) console.log('worker', typeof express);
else if (process.argv[2]) console.log('forked', typeof express);
else { new Worker(new URL(import.meta.url), { execArgv: [] }); fork(new URL(import.meta.url).pathname, ['x']); }
"""
TYPED = "import express from 'express'; const kind: string = typeof express; console.log('typed', kind);\n"
TSX = """import express from 'express'; import { help } from './help';
enum Colour { Red = 1 }
const h = (tag: string) => tag;
/** @jsx h */
console.log('tsx', typeof express, Colour.Red, <div />, help);
"""
TEST = "import test from 'node:test'; import express from 'express'; test('is there', () => express());\n"


@pytest.fixture(scope="module")
def project(installs: Installs) -> Workplace:
    installs.install("express", {"dependencies": {"express": "4"}})
    files = {"a.mjs": ESM, "b.cjs": CJS, "w.mjs": WORKER, "c.ts": TYPED, "d.tsx": TSX, "t.test.mjs": TEST}
    lines = [f"echo {encoded(text.encode())} | base64 -d > {name}" for name, text in files.items()]
    place = "mkdir -p /sandbox/deep/er; cd /sandbox/deep/er"
    installs.place.run("\n".join([place, *lines, "echo 'export const help = 2' > help.ts"]))
    return installs.place


def test_every_way_of_starting_node_finds_the_packages(project: Workplace) -> None:
    home = "/sandbox/.qila/env/node/express/node_modules/express"
    answer = project.run(
        """cd /sandbox/deep/er; node a.mjs; node b.cjs; node w.mjs | sort; node c.ts; tsx d.tsx
        node --test t.test.mjs | grep -oE 'pass 1'; node -e 'console.log("eval", typeof require("express"))'
        echo 'import e from "express"; console.log("stdin", typeof e)' | node --input-type=module
        cp c.ts /sandbox/c.ts; node /sandbox/c.ts; rm /sandbox/c.ts"""
    )
    assert answer.splitlines() == [
        f"esm true file://{home}/index.js",
        f"cjs function {home}/package.json",
        "MODULE_NOT_FOUND",
        "same true",
        "forked function",
        "worker function",
        "typed function",
        "tsx function 1 div 2",
        "pass 1",
        "eval function",
        "stdin function",
        "typed function",
    ]


def test_the_link_for_people_makes_no_second_copy(project: Workplace) -> None:
    answer = project.run(
        """ln -s .qila/current/node/node_modules /sandbox/node_modules; cd /sandbox/deep/er; node a.mjs; node b.cjs
        QILA_NODE_ENV= node b.cjs | grep same; rm /sandbox/node_modules"""
    )
    assert answer.count("same true") == 2
    assert "esm true file:///sandbox/.qila/env/node/express/" in answer


def test_the_users_own_modules_win_for_what_they_have(project: Workplace) -> None:
    answer = project.run(
        """cd /sandbox/deep; mkdir -p node_modules/express
        echo 'module.exports = "mine"' > node_modules/express/index.js
        node -p 'require("express")'; node -p 'typeof require("send")'; rm -r node_modules"""
    )
    assert answer == "mine\nfunction\n"


def test_a_start_keeps_its_environment_when_another_becomes_the_current_one(
    installs: Installs, project: Workplace
) -> None:
    installs.install("second", {"dependencies": {"left-pad": "1.3.0"}})
    answer = project.run(
        """cd /sandbox/deep/er; ln -s .qila/current/node/node_modules /sandbox/node_modules
        node -p 'typeof require("left-pad")'
        export QILA_NODE_ENV=/sandbox/.qila/env/node/express; node -p 'typeof require("express")'
        node --input-type=module -e 'console.log((await import("express")).default.name)'
        rm /sandbox/node_modules; QILA_NODE_ENV= node -e 'require("express")' 2>&1 | grep -c "code: 'MODULE_NOT_FOUND'"
        """
    )
    project.run("ln -sfn ../env/node/express /sandbox/.qila/current/node", user="install")
    assert answer.splitlines() == ["function", "function", "createApplication", "1"]
