"""Programs whose manifest forgot an import: told before and after the run, and installed where the exec says so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from tests.e2e.workbench import Told, Workbench

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]


@dataclass(frozen=True, kw_only=True)
class Language:
    """The same small programs in each language: each prints "begun", and "3" at its end.

    `undeclared` imports a package that its manifest forgot, `hidden` one whose name no scan can see, `transitive` one
    that is there because another package requires it; `missing` is how the forgotten one is told.
    """

    file: str
    manifest: dict[str, str]
    undeclared: str
    hidden: str
    missing: pb.MissingImport
    transitive_manifest: dict[str, str]
    transitive: str
    transitive_module: str


PYTHON = Language(
    file="main.py",
    manifest={"requirements.txt": "idna==3.10\n"},
    undeclared="import idna\nimport six\nprint('begun')\nprint(six.ensure_str(b'3'))\n",
    hidden="import importlib\nprint('begun')\nprint(importlib.import_module('s' + 'ix').ensure_str(b'3'))\n",
    missing=pb.MissingImport(
        module="six", path="main.py", line=2, suggestion="six", manifest="requirements.txt", declaration="six"
    ),
    transitive_manifest={"requirements.txt": "requests==2.32.3\n"},
    transitive="import requests\nimport urllib3\nprint(3)\n",
    transitive_module="urllib3",
)
NODE = Language(
    file="main.mjs",
    manifest={"package.json": '{"dependencies": {"ms": "2.1.3"}}'},
    undeclared="import ms from 'ms'\nimport it from 'semver'\nconsole.log('begun')\nconsole.log(it.major('3.1.0'))\n",
    hidden="console.log('begun')\nconst {default: it} = await import('sem' + 'ver')\nconsole.log(it.major('3.1.0'))\n",
    missing=pb.MissingImport(
        module="semver",
        path="main.mjs",
        line=2,
        suggestion="semver@*",
        manifest="package.json",
        declaration='"semver": "*"',
    ),
    transitive_manifest={"package.json": '{"dependencies": {"debug": "4.3.4"}}'},
    transitive="import debug from 'debug'\nimport ms from 'ms'\nconsole.log(ms('3ms'))\n",
    transitive_module="ms",
)
FIRST_RUN = [("RESOLVE", 0), ("INSTALL", 0), ("RUN", 0)]
NOTHING_TO_INSTALL = [("RESOLVE", 0), ("RUN", 0)]

languages = pytest.mark.parametrize("language", [PYTHON, NODE], ids=["python", "node"])


def check_exited(told: Told, code: int) -> None:
    assert told.ended.WhichOneof("end") == "exited", told.everything()
    assert told.ended.exited == code, told.everything()


@languages
def test_forgotten_import_is_told_before_and_after_the_run_and_added_if_asked(
    workbench: Workbench, language: Language
) -> None:
    sandbox = workbench.sandbox({**language.manifest, language.file: language.undeclared})
    told = workbench.run(sandbox, language.file)
    check_exited(told, 1)
    assert list(told.checked.missing) == [language.missing]
    kinds = [event.WhichOneof("event") for event in told.events]
    begun = max(index for index, event in enumerate(told.events) if event.HasField("phase_started"))
    assert kinds.index("imports_checked") < begun
    [after] = told.ended.missing_imports
    # Node does not say the line.
    after.line = language.missing.line
    assert after == language.missing

    added = workbench.run(sandbox, language.file, install_missing=True)
    check_exited(added, 0)
    assert (added.phases, added.output()) == (FIRST_RUN, "begun\n3\n")
    assert added.checked == pb.ImportsChecked()


@languages
def test_import_that_no_scan_sees_is_added_after_it_failed_and_is_there_from_then_on(
    workbench: Workbench, language: Language
) -> None:
    sandbox = workbench.sandbox({**language.manifest, language.file: language.hidden})
    told = workbench.run(sandbox, language.file, install_missing=True)
    check_exited(told, 0)
    assert told.phases == [*FIRST_RUN, ("RESOLVE", 1), ("INSTALL", 1), ("RUN", 1)]
    assert (told.output(0), told.output(1)) == ("begun\n", "begun\n3\n")

    second = next(event.sequence for event in told.events if event.phase_started.run == 1)
    rest = workbench.attach(sandbox, told.exec_id, second, pb.OutputOffsets(run=1, stdout=len("beg")))
    assert (rest.output(0), rest.output(1), rest.ended) == ("", "un\n3\n", told.ended)
    assert not [event for event in rest.events if event.sequence and event.sequence <= second]

    again = workbench.run(sandbox, language.file, install_missing=True)
    check_exited(again, 0)
    assert (again.phases, again.output()) == (NOTHING_TO_INSTALL, "begun\n3\n")
    workbench.put(sandbox, {language.file: language.hidden.replace("begun", "begun anew")})
    changed = workbench.run(sandbox, language.file, install_missing=True)
    assert (changed.phases, changed.output()) == (NOTHING_TO_INSTALL, "begun anew\n3\n"), changed.everything()


@languages
def test_import_that_only_another_package_requires_is_told_with_its_version(
    workbench: Workbench, language: Language
) -> None:
    sandbox = workbench.sandbox({**language.transitive_manifest, language.file: language.transitive})
    told = workbench.run(sandbox, language.file)
    check_exited(told, 0)
    [found] = told.checked.transitive
    assert (found.module, found.path, found.line) == (language.transitive_module, language.file, 2)
    assert re.fullmatch(r"\d+\.\d+\.\d+", found.transitive_version)
    assert not told.checked.missing
