"""Locks that make the same sandbox again, comparisons, and SBOMs of what was importable, with real packages."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from tests.e2e.conftest import Installation
    from tests.e2e.workbench import Workbench

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
SPDX = Path(__file__).resolve().parents[1] / "cases" / "schemas" / "spdx-2.3.schema.json"


@dataclass(frozen=True, kw_only=True)
class Language:
    """A program with a manifest, and the same program whose manifest would have other versions without a lock.

    `by_hand` is typed into a sandbox in which `plain` runs: its package `unmanaged` is then there without Qila.
    """

    file: str
    source: str
    files: dict[str, str]
    loose: dict[str, str]
    native: str
    by_hand: str
    plain: str
    unmanaged: str


PYTHON = Language(
    file="main.py",
    source="import requests\nprint(requests.__version__)\n",
    files={"requirements.txt": "requests==2.32.3\n"},
    loose={"requirements.txt": "requests\n"},
    native="pylock.toml",
    by_hand="pip install -q --user six==1.16.0",
    plain="import importlib\nprint(importlib.import_module('s' + 'ix').__version__)\n",
    unmanaged="pkg:pypi/six@1.16.0",
)
NODE = Language(
    file="main.js",
    source="console.log(require('debug/package.json').version)\n",
    files={"package.json": '{"dependencies": {"debug": "4.3.4"}}'},
    loose={"package.json": '{"dependencies": {"debug": "^4.3.0"}}'},
    native="package-lock.json",
    by_hand="npm install left-pad@1.3.0 >/dev/null && rm package.json package-lock.json",
    plain="console.log(require(['left', 'pad'].join('-') + '/package.json').version)\n",
    unmanaged="pkg:npm/left-pad@1.3.0",
)
languages = pytest.mark.parametrize("language", [PYTHON, NODE], ids=["python", "node"])


def reference(sandbox: str) -> pb.LockReference:
    return pb.LockReference(exec=pb.ExecReference(sandbox_id=sandbox))


def altered(lock: bytes) -> bytes:
    """With another first hash of the first package that has one."""
    found = re.search(rb'(sha256 = "|sha256:|sha512:|sha512-)(\w)', lock)
    assert found is not None
    other = b"0" if found[2] != b"0" else b"1"
    return lock[: found.start(2)] + other + lock[found.end(2) :]


def first_difference(one: bytes, other: bytes) -> int:
    """The line, from 1, of the first byte in which they differ."""
    index = next(index for index, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
    return one[:index].count(b"\n") + 1


@languages
def test_locks_make_the_same_again_and_an_altered_one_is_told_with_its_line(
    workbench: Workbench, installation: Installation, language: Language
) -> None:
    first = workbench.sandbox({**language.files, language.file: language.source})
    told = workbench.run(first, language.file)
    assert told.ended.WhichOneof("end") == "exited", told.everything()
    made = workbench.client.lock(first)
    assert made.native_lock_name == language.native
    for name, content in (("qila.lock.json", made.lock), (language.native, made.native_lock)):
        given = pb.Lockfile(name=name, content=content)
        sandbox = workbench.sandbox({**language.loose, language.file: language.source}, lock=given)
        again = workbench.run(sandbox, language.file)
        assert again.output() == told.output(), again.everything()
        assert workbench.client.lock(sandbox).lock.decode() == made.lock.decode(), name
        assert not workbench.client.diff(reference(first), reference(sandbox)).changes
        assert installation.qila("diff", first, sandbox).returncode == 0

        given.content = altered(content)
        sandbox = workbench.sandbox({language.file: language.source}, lock=given)
        failed = workbench.run(sandbox, language.file)
        assert failed.failure.startswith("no_solution\n"), failed.everything()
        line = first_difference(content, given.content)
        lines = [int(found) for found in re.findall(rf"{re.escape(name)}:(\d+)", failed.failure)]
        # That of the package, near its hash.
        assert lines, failed.failure
        assert abs(line - lines[0]) <= 10, failed.failure


@languages
def test_two_sandboxes_are_compared(workbench: Workbench, installation: Installation, language: Language) -> None:
    other = {name: re.sub(r"2\.32\.3|4\.3\.4", _older, content) for name, content in language.files.items()}
    before, after = (workbench.sandbox({**files, language.file: language.source}) for files in (other, language.files))
    for sandbox in (before, after):
        told = workbench.run(sandbox, language.file)
        assert told.ended.WhichOneof("end") == "exited", told.everything()
    found = workbench.client.diff(reference(before), reference(after))
    changed = {(change.before.version, change.after.version) for change in found.changes}
    assert changed <= {("2.32.2", "2.32.3"), ("4.3.3", "4.3.4")}
    assert changed
    [change] = found.changes
    shown = installation.qila("diff", "--format", "markdown", before, after)
    assert shown.returncode == 1
    assert change.before.version in shown.stdout.decode()
    assert change.after.version in shown.stdout.decode()


def _older(found: re.Match[str]) -> str:
    return {"2.32.3": "2.32.2", "4.3.4": "4.3.3"}[found.group()]


@languages
def test_sbom_marks_what_was_installed_by_hand_and_an_earlier_one_stays(
    workbench: Workbench, language: Language
) -> None:
    sandbox = workbench.sandbox(
        {**language.files, language.file: language.source, f"plain/{language.file}": language.plain}
    )
    earlier = workbench.run(sandbox, language.file)
    before = cyclonedx_of(workbench, sandbox, earlier.exec_id)
    workbench.type(sandbox, language.by_hand)
    told = workbench.run(sandbox, f"plain/{language.file}", no_detection=True)
    assert told.output() == language.unmanaged.rpartition("@")[2] + "\n", told.everything()
    document = cyclonedx_of(workbench, sandbox, "")
    marked = {item["purl"] for item in document["components"] if managed_of(item) == "false"}
    assert language.unmanaged in marked
    spdx = json.loads(workbench.client.sbom(sandbox, "", pb.SBOM_FORMAT_SPDX_2_3))
    jsonschema.Draft7Validator(json.loads(SPDX.read_text())).validate(spdx)
    by_hand = [item for item in spdx["packages"] if "qila:managed=false" in json.dumps(item)]
    assert language.unmanaged in {ref["referenceLocator"] for item in by_hand for ref in item["externalRefs"]}
    assert cyclonedx_of(workbench, sandbox, earlier.exec_id) == before
    assert "false" not in {managed_of(item) for item in before["components"]}


def cyclonedx_of(workbench: Workbench, sandbox: str, exec_id: str) -> dict[str, Any]:
    """A valid SBOM, whatever it says."""
    content = workbench.client.sbom(sandbox, exec_id, pb.SBOM_FORMAT_CYCLONEDX_1_6).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(content) is None
    document: dict[str, Any] = json.loads(content)
    return document


def managed_of(component: dict[str, Any]) -> str:
    """True or false in JSON's words; empty for what is no package."""
    found: dict[str, str] = {item["name"]: item["value"] for item in component.get("properties", [])}
    return found.get("qila:managed", "")
