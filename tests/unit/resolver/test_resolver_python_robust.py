"""What strangers may write must neither stop the resolver nor end in anything but its own errors."""

from __future__ import annotations

import copy
import json
import time
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from services.resolver.calls import Inventory, RenderSbom
from services.resolver.errors import InventoryError, LockError, ManifestError, ResolverError
from services.resolver.model import Context, Lockfile, SbomFormat, SbomSubject, StepKind, Target
from services.resolver.plan import plan
from services.resolver.python.failures import explain_failure
from services.resolver.python.lock import locked_packages, read_native_lock, unmanaged_packages
from services.resolver.python.locks.outside import locked_by
from services.resolver.python.progress import parse_installer_line
from services.resolver.python.run_failures import explain_run

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOLCHAIN = {"python": "3.13.5"}
HASH = "sha256:" + "a" * 64
# Of processor time. Linear patterns take less than one for any of these, quadratic ones a minute.
MAX_SECONDS = 5.0
WORDS = ["a", "a.", "a=", "=", "1", "\n", " ", "\t", "`", "[", "\x1b[", "(", "é", "and a", "Failed to download ", "'"]


@pytest.mark.parametrize("word", WORDS)
def test_failure_of_one_repeated_word_is_explained_at_once(word: str) -> None:
    begin = time.process_time()
    output = (word * (1 << 20))[: 1 << 20].encode()
    for step in StepKind:
        explain_failure(step, 1, b"error: " + output)
        explain_failure(step, 1, b"error: Call to `" + output)
    explain_run(output)
    for name in ("ImportError", "PackageNotFoundError", "RuntimeError"):
        explain_run(b"Traceback (most recent call last):\n" + f"{name}: ".encode() + output[: 200 * 1024])
    parse_installer_line(output[:1024])
    assert time.process_time() - begin < MAX_SECONDS


def test_name_in_the_middle_of_a_long_word_is_none() -> None:
    text = f"error: {'a' * 300} was not found in the package registry"
    assert explain_failure(StepKind.SOLVE, 1, text.encode()).packages == ()


DEEP = "(" * 900 + "os_name == 'posix'" + ")" * 900
BAD_MARKERS = ["python_version ~= 'x'", DEEP, "nothing == '1'", "!!"]


@pytest.mark.parametrize("marker", BAD_MARKERS)
def test_native_lock_with_an_unreadable_marker_is_refused(marker: str) -> None:
    pylock = f'lock-version = "1.0"\n[[packages]]\nname = "a"\nversion = "1"\nmarker = "{marker}"\n'
    with pytest.raises(LockError):
        read_native_lock(pylock.encode(), "3.13.5")
    with pytest.raises(LockError):
        read_native_lock(f"a==1; {marker} --hash={HASH}\n".encode(), "3.13.5")


def installed(name: str, *requires: str, **fields: Any) -> dict[str, Any]:
    lists: dict[str, Any] = {key: [] for key in ("classifiers", "missing", "modified", "tags")}
    return {**lists, "name": name, "version": "1.0", "requires_dist": list(requires), **fields}


def inventory(*packages: Any) -> bytes:
    return json.dumps({"format": 1, "ecosystem": "python", "packages": packages}).encode()


@pytest.mark.parametrize("marker", BAD_MARKERS)
def test_requirement_of_a_package_that_cannot_be_read_is_skipped(marker: str) -> None:
    lock = f"a==1.0 --hash={HASH}\nb==1.0 --hash={HASH}\nc==1.0 --hash={HASH}\n".encode()
    found = inventory(installed("a", f"b; {marker}", "c"), installed("b"), installed("c"))
    packages = {item.name: item.required_by for item in locked_packages(["a"], lock, found, TOOLCHAIN)}
    assert packages == {"a": (), "b": (), "c": ("pkg:pypi/a@1.0",)}


def test_unmanaged_entries_that_are_no_packages_are_left_out() -> None:
    twice = [installed("a", "!!", "b"), installed("A", version="2.0")]
    raw = inventory(*twice, installed("a b"), 5, installed("c", classifiers=1), installed("b"))
    unmanaged = unmanaged_packages(raw, "3.13.5")
    found = {item.name: (item.version, item.required_by) for item in unmanaged.packages}
    assert not unmanaged.complete
    assert found == {"a": ("1.0", ()), "b": ("1.0", ("pkg:pypi/a@1.0",))}


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"format": 1, "ecosystem": "python", "packages": 1}'])
def test_sbom_without_a_readable_inventory_says_so(raw: bytes) -> None:
    with pytest.raises(InventoryError):
        unmanaged_packages(raw, "3.13.5")
    subject = SbomSubject(sandbox_id="sb", exec_id="ex", time=1)
    given = tuple(Inventory(ecosystem="python", content=content) for content in (raw, inventory(installed("a"))))
    call = RenderSbom(subject=subject, locks=(), unmanaged=given, format=SbomFormat.CYCLONEDX_1_6)
    document = json.loads(call.run().content)
    assert document["compositions"] == [{"aggregate": "incomplete", "assemblies": ["ex"]}]
    assert {"name": "qila:unmanaged-known", "value": "false"} in document["metadata"]["component"]["properties"]
    assert [item["name"] for item in document["components"]] == ["a"]


FILE = {"url": "https://registry.example/a-1-py3-none-any.whl", "hash": HASH, "file": "a-1-py3-none-any.whl"}
LOCKS: dict[str, dict[str, Any]] = {
    "uv.lock": {
        "version": 1,
        "requires-python": ">=3.11",
        "conflicts": [],
        "manifest": {"requirements": [{"name": "a"}]},
        "package": [
            {
                "name": "own",
                "version": "0",
                "source": {"virtual": "."},
                "dependencies": [{"name": "a", "extra": ["x"], "marker": "os_name == 'posix'", "version": "1"}],
                "optional-dependencies": {"x": [{"name": "a"}]},
                "dev-dependencies": {"dev": [{"name": "a"}]},
            },
            {
                "name": "a",
                "version": "1",
                "source": {"registry": "https://registry.example/simple"},
                "sdist": {"url": "https://registry.example/a-1.tar.gz", "hash": HASH},
                "wheels": [FILE],
            },
        ],
    },
    "poetry.lock": {
        "package": [
            {
                "name": "a",
                "version": "1",
                "optional": False,
                "groups": ["main"],
                "markers": {"main": "os_name == 'posix'"},
                "python-versions": ">=3.9",
                "files": [FILE],
                "dependencies": {"b": {"version": "*", "extras": ["x"], "markers": "extra == 'x'", "python": ">=3"}},
                "extras": {"x": ["b (>=1)"]},
            },
            {"name": "b", "version": "1", "files": [FILE], "source": {"type": "legacy", "url": "x", "reference": "y"}},
        ],
        "extras": {"x": ["b"]},
        "metadata": {"lock-version": "2.1", "python-versions": ">=3.9", "content-hash": "a"},
    },
    "pdm.lock": {
        "metadata": {
            "groups": ["default"],
            "lock_version": "4.5",
            "strategy": ["x"],
            "targets": [{"requires_python": ">=3.9", "platform": "linux"}],
        },
        "package": [
            {
                "name": "a",
                "version": "1",
                "groups": ["default"],
                "marker": "os_name == 'posix'",
                "dependencies": ["b>=1; os_name == 'posix'"],
                "files": [FILE],
            },
        ],
    },
    "Pipfile.lock": {
        "_meta": {"hash": {"sha256": "a"}, "requires": {"python_version": "3.13"}, "sources": [{"url": "x"}]},
        "default": {"a": {"version": "==1", "hashes": [HASH], "markers": "os_name == 'posix'", "extras": ["x"]}},
    },
    "pylock.toml": {
        "lock-version": "1.0",
        "created-by": "x",
        "requires-python": ">=3.9",
        "environments": ["os_name == 'posix'"],
        "extras": ["x"],
        "dependency-groups": ["g"],
        "default-groups": ["g"],
        "packages": [
            {
                "name": "a",
                "version": "1",
                "marker": "os_name == 'posix'",
                "index": "https://registry.example/simple",
                "dependencies": [{"name": "b"}],
                "wheels": [{"name": FILE["file"], "url": FILE["url"], "hashes": {"sha256": "a" * 64}}],
                "sdist": {"name": "a-1.tar.gz", "url": "https://registry.example/a-1.tar.gz", "hashes": {"x": "y"}},
            },
        ],
    },
}
VALUES: list[Any] = [[], 1, "x", {}, "", "extra ~= 'x'", ["x"], [1], {"x": 1}, {"x": [1]}, True, "(" * 2000]


def toml_of(value: Any) -> str:
    """A value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_of(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml_of(item) for item in value) + "]"
    return json.dumps(value)


def written(name: str, document: dict[str, Any]) -> bytes:
    if name == "Pipfile.lock":
        return json.dumps(document).encode()
    return "".join(f"{json.dumps(key)} = {toml_of(value)}\n" for key, value in document.items()).encode()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in entries:
        yield (*path, key)
        yield from places(item, (*path, key))


def mutations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in places(document):
        for value in VALUES:
            changed: Any = copy.deepcopy(document)
            inner = changed
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
            yield changed


@pytest.mark.parametrize("name", LOCKS)
def test_any_value_in_a_lock_is_read_or_refused(name: str) -> None:
    assert locked_by(Lockfile(name=name, content=written(name, LOCKS[name])), TOOLCHAIN)[0].name == "a"
    refused = 0
    for changed in mutations(LOCKS[name]):
        raw = written(name, changed)
        assert name == "Pipfile.lock" or tomllib.loads(raw.decode()) == changed
        try:
            locked_by(Lockfile(name=name, content=raw), TOOLCHAIN)
        except ResolverError:
            refused += 1
    assert refused


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("requirements.txt", "a; {}\n"),
        ("Pipfile", '[packages]\na = {{version = "*", markers = "{}"}}\n'),
        ("pyproject.toml", '[tool.poetry.dependencies]\na = {{version = "*", markers = "{}"}}\n'),
    ],
)
@pytest.mark.parametrize("depth", [60, 900])
def test_marker_of_a_manifest_that_is_nested_too_deep_is_refused_with_its_line(
    path: str, text: str, depth: int
) -> None:
    files = {path: text.format("(" * depth + "os_name == 'posix'" + ")" * depth).encode(), "main.py": b"import a"}
    with pytest.raises(ManifestError) as caught:
        plan(files, tuple(files), Target(program="main.py"), Context(toolchain=TOOLCHAIN))
    assert (caught.value.path, caught.value.line > 0) == (path, True)
