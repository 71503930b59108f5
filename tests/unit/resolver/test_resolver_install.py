from __future__ import annotations

import json
from typing import Any

import pytest

from services.resolver.errors import InstallMismatchError, InventoryError, LockError
from services.resolver.model import Context, FailureReason, InstallStage, StageProgress, StepKind, Target
from services.resolver.plan import plan, render_lock, verify_install
from services.resolver.python.failures import explain_failure
from services.resolver.python.licenses import license_of
from services.resolver.python.lock import unmanaged_packages
from services.resolver.python.progress import parse_installer_line

TOOLCHAIN = {"python": "3.13.5"}
HASH = "sha256:" + "a" * 64
LOCK = (
    f"idna==3.20 \\\n    --hash={HASH}\n    # via requests\nrequests==2.34.2 \\\n    --hash={HASH}\n    # via -r x\n"
    f"colorama==0.4 ; sys_platform == 'win32' \\\n    --hash={HASH}\n"
).encode()


OTHER_FILE = (
    "error: Failed to download `cffi==2.1.1`\n  cause: Hash mismatch for `cffi==2.1.1`\n\n         Expected:\n"
    f"           {HASH}\n\n         Computed:\n           sha256:{'b' * 64}"
)


def package(name: str, version: str, **fields: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"classifiers": [], "requires_dist": [], "missing": [], "modified": []}
    return {"name": name, "version": version, "license_expression": None, "license": None} | empty | fields


def inventory(*packages: dict[str, Any]) -> bytes:
    document = {"format": 1, "ecosystem": "python", "machine": "x86_64", "packages": packages}
    return json.dumps(document).encode()


REQUESTS = package("requests", "2.34.2", license="Apache-2.0", requires_dist=["idna<4", "x; extra == 'socks'"])
IDNA = package("idna", "3.20", license_expression="BSD-3-Clause")


def test_lock_does_not_depend_on_the_order_of_the_inventory() -> None:
    one = render_lock("python", ["requests>=2"], LOCK, inventory(REQUESTS, IDNA), TOOLCHAIN, registry_urls={})
    other = render_lock("python", ["requests>=2"], LOCK, inventory(IDNA, REQUESTS), TOOLCHAIN, registry_urls={})
    assert one == other
    idna, requests = json.loads(one.content)["packages"]
    assert (idna["direct"], idna["required_by"]) == (False, ["pkg:pypi/requests@2.34.2"])
    assert (requests["direct"], requests["license"], requests["hashes"]) == (True, "Apache-2.0", [HASH])


@pytest.mark.parametrize(
    ("packages", "kind"),
    [
        ([REQUESTS], "absent"),
        ([REQUESTS, IDNA, package("evil", "1")], "unexpected"),
        ([REQUESTS, IDNA | {"version": "3.19"}], "other_version"),
        ([REQUESTS, IDNA | {"modified": ["idna/core.py"]}], "damaged"),
        ([REQUESTS, IDNA | {"missing": ["idna/core.py"]}], "damaged"),
    ],
)
def test_what_is_not_as_locked_is_named(packages: list[dict[str, Any]], kind: str) -> None:
    with pytest.raises(InstallMismatchError) as caught:
        verify_install("python", LOCK, inventory(*packages), TOOLCHAIN)
    differing = {name for name, items in vars(caught.value).items() if items}
    assert differing == {kind}


def test_install_as_locked_is_accepted() -> None:
    verify_install("python", LOCK, inventory(REQUESTS, IDNA), TOOLCHAIN)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b'{"format": 2}',
        inventory(IDNA, IDNA),
        inventory(IDNA | {"name": "../x"}),
        inventory(IDNA | {"version": "1\n2"}),
        inventory(IDNA | {"license": 3}),
        inventory(IDNA | {"missing": "x"}),
        inventory(IDNA | {"tags": "x"}),
        inventory(IDNA | {"build": 1}),
        b'{"format": 1, "ecosystem": "python", "packages": [NaN]}',
    ],
)
def test_hostile_inventory_is_refused(raw: bytes) -> None:
    with pytest.raises(InventoryError):
        verify_install("python", LOCK, raw, TOOLCHAIN)


@pytest.mark.parametrize(
    ("step", "output", "reason", "package_name"),
    [
        (
            StepKind.SOLVE,
            (
                "error: No solution found when resolving dependencies\n  cause: Because qila-no-such was not "
                "found in the package registry and you require qila-no-such, we can conclude that your "
                "requirements are unsatisfiable."
            ),
            FailureReason.NOT_FOUND,
            "qila-no-such",
        ),
        (
            StepKind.SOLVE,
            (
                "error: No solution found when resolving dependencies\n  cause: Because requests==2.32.3 depends on "
                "urllib3>=1.21.1,<3 and you require urllib3<1, we can conclude that your requirements are incompatible."
            ),
            FailureReason.NO_SOLUTION,
            "requests",
        ),
        (
            StepKind.SOLVE,
            "error: No solution found when resolving dependencies\n  cause: Since thing==2.32.3 depends on urllib3<3.",
            FailureReason.NO_SOLUTION,
            "thing",
        ),
        (
            StepKind.SOLVE,
            (
                "error: Request failed after 3 retries in 10.2s\n  cause: Failed to fetch: "
                "http://127.0.0.1:9/pypi/simple/requests/\n  cause: tcp connect error\n  cause: Connection refused"
            ),
            FailureReason.NETWORK_DENIED,
            "requests",
        ),
        (
            StepKind.INSTALL,
            "error: Failed to build `thing==1.0`\n  cause: The build backend returned an error",
            FailureReason.BUILD_FAILED,
            "thing",
        ),
        (
            StepKind.SOLVE,
            (
                "error: No solution found when resolving dependencies\n  cause: Because there is no version of "
                "six==1.17.99 and you require six==1.17.99, we can conclude that your requirements are unsatisfiable."
            ),
            FailureReason.NO_SOLUTION,
            "six",
        ),
        (StepKind.INSTALL, OTHER_FILE, FailureReason.NO_SOLUTION, "cffi"),
        (
            StepKind.INSTALL,
            "error: Failed to download `numpy==2.3.0`\n  cause: No space left on device (os error 28)",
            FailureReason.OUT_OF_SPACE,
            "numpy",
        ),
    ],
)
def test_failure_is_explained(step: StepKind, output: str, reason: FailureReason, package_name: str) -> None:
    failure = explain_failure(step, 1, f"warning: something else\n{output}\n".encode())
    assert failure.reason is reason
    assert package_name in failure.packages
    assert failure.detail == output


def test_file_that_is_not_the_locks_is_explained() -> None:
    (hint,) = explain_failure(StepKind.INSTALL, 1, OTHER_FILE.encode()).hints
    assert hint.startswith("cffi has no file with a hash of the lock that fits this sandbox")


def test_failure_that_nobody_knows_is_named_by_its_step() -> None:
    assert explain_failure(StepKind.SOLVE, 2, b"strange").reason is FailureReason.NO_SOLUTION
    assert explain_failure(StepKind.INSTALL, 2, b"strange").reason is FailureReason.BUILD_FAILED


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b" + requests==2.34.2\n", ("installed", "requests", "2.34.2")),
        (b"Downloading numpy (15.9MiB)", ("downloading", "numpy", "")),
        (b"   Building thing==1.0", ("building", "thing", "1.0")),
        (b"Using CPython 3.13.5 interpreter at: /usr/bin/python3", None),
        (b" + " + b"x" * 5000 + b"==1", None),
    ],
)
def test_progress_line(line: bytes, expected: tuple[str, str, str] | None) -> None:
    event = parse_installer_line(line)
    assert not isinstance(event, StageProgress)
    assert (event and (event.action, event.name, event.version)) == expected


@pytest.mark.parametrize(
    ("line", "stage", "count"),
    [
        (b"Resolved 5 packages in 3ms\n", InstallStage.RESOLVING, 5),
        (b"Prepared 1 package in 1.32s", InstallStage.DOWNLOADING, 1),
        (b"Installed 12 packages in 2m 05s", InstallStage.INSTALLING, 12),
    ],
)
def test_stage_that_is_over(line: bytes, stage: InstallStage, count: int) -> None:
    assert parse_installer_line(line) == StageProgress(stage=stage, done=count, total=count)


DOOR = "http://127.0.0.1:7480/pypi"
WHEEL = f"{DOOR}/files/{'b' * 64}/{'c' * 64}/packages/cd/idna-3.20-py3-none-any.whl"
PYLOCK = f"""\
lock-version = "1.0"
created-by = "uv"
requires-python = ">=3.13.5"

[[packages]]
name = "idna"
version = "3.20"
index = "{DOOR}/simple"
sdist = {{ url = "{DOOR}/files/{"a" * 64}/-/packages/ab/idna.tar.gz", hashes = {{ sha256 = "{"a" * 64}" }} }}
wheels = [{{ url = "{WHEEL}", hashes = {{ sha256 = "{"b" * 64}" }} }}]

[[packages]]
name = "colorama"
version = "0.4"
marker = "sys_platform == 'win32'"
""".encode()


def test_pylock_is_the_native_lock() -> None:
    verify_install("python", PYLOCK, inventory(IDNA), TOOLCHAIN)
    rendered = render_lock(
        "python",
        ["idna"],
        PYLOCK,
        inventory(IDNA),
        TOOLCHAIN,
        registry_urls={f"{DOOR}/simple/": "https://index.example/simple/", f"{DOOR}/files/": "https://files.example/"},
    )
    assert rendered.package_count == 1
    assert b"127.0.0.1" not in rendered.native_lock
    assert b'"https://files.example/packages/cd/idna-3.20-py3-none-any.whl"' in rendered.native_lock
    assert b'index = "https://index.example/simple"' in rendered.native_lock


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (PYLOCK.replace(b'version = "0.4"', b""), 0),
        (PYLOCK.replace(b'"colorama"', b"colorama"), 13),
        (PYLOCK.replace(b'"idna"', b'"../idna"'), 0),
        (b"lock-version = " + b"[" * 100_000, 0),
        (b'lock-version = "9.0"\ncreated-by = "x"\npackages = []\n', 0),
    ],
)
def test_pylock_that_cannot_be_read_is_refused(raw: bytes, line: int) -> None:
    with pytest.raises(LockError) as caught:
        verify_install("python", raw, inventory(IDNA), TOOLCHAIN)
    assert caught.value.line == line


def test_previous_lock_is_a_preference_only() -> None:
    context = Context(toolchain=TOOLCHAIN, previous_locks={"python": PYLOCK})
    planned = plan({"main.py": b"import idna\n"}, ["main.py"], Target(), context)
    staged = {file.path: file.content for file in planned.staged}
    assert b'name = "idna"\nversion = "3.20"' in staged["pylock.toml"]
    assert b"127.0.0.1" not in staged["pylock.toml"]
    broken = Context(toolchain=TOOLCHAIN, previous_locks={"python": b"lock-version = ["})
    assert len(plan({"main.py": b"import idna\n"}, ["main.py"], Target(), broken).staged) == 1


def test_packages_installed_by_hand() -> None:
    unmanaged = unmanaged_packages(inventory(IDNA, REQUESTS), "3.13.5")
    requests, idna = sorted(unmanaged.packages, key=lambda item: not item.direct)
    assert unmanaged.complete
    assert (requests.name, requests.direct, requests.hashes) == ("requests", True, ())
    assert (idna.direct, idna.license, idna.required_by) == (False, "BSD-3-Clause", (requests.purl,))


@pytest.mark.parametrize(
    ("expression", "text", "classifiers", "expected"),
    [
        ("MIT OR Apache-2.0", "x", [], ("MIT OR Apache-2.0", "")),
        (None, "BSD-3-Clause", [], ("BSD-3-Clause", "")),
        (None, "do what you like", ["License :: OSI Approved :: MIT License"], ("MIT", "")),
        (None, "do what you like", [], ("NOASSERTION", "do what you like")),
        (
            None,
            None,
            ["License :: OSI Approved :: BSD License"],
            ("NOASSERTION", "License :: OSI Approved :: BSD License"),
        ),
    ],
)
def test_license(expression: str | None, text: str | None, classifiers: list[str], expected: tuple[str, str]) -> None:
    assert license_of(expression, text, classifiers) == expected
