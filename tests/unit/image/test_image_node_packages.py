"""The pins of the package managers that come from npm: every byte is held against them, and they change together."""

import base64
import dataclasses
import hashlib
import json
import platform
import re
from pathlib import Path

import pytest

from sandbox.image import node_packages
from sandbox.image.node_packages import LOCK, NodePackage, NodePackagesError, download, pin, read_packages

CONTENT = b"a tarball"
PIN = "sha512-" + base64.b64encode(hashlib.sha512(CONTENT).digest()).decode()
TOOL = NodePackage(name="@org/tool", version="1.0.0", integrity=PIN)
NATIVE = NodePackage(name="native", version="1.0.0", integrity=PIN, goes_with="@org/tool", machine="x86_64")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What a registry without a network answers, by path."""
    answers: dict[str, bytes] = {}
    monkeypatch.setattr(node_packages, "_get", lambda name, path: answers[path])
    return answers


def page(*versions: str, integrity: str = PIN) -> bytes:
    releases = {version: {"dist": {"integrity": integrity}} for version in versions}
    return json.dumps({"dist-tags": {"latest": versions[-1]}, "versions": releases}).encode()


def test_the_shipped_file_pins_everything_and_names_no_host() -> None:
    packages = read_packages()
    assert {package.machine for package in packages} == {None, "x86_64", "aarch64"}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", package.version) for package in packages)
    assert "://" not in LOCK.read_text()
    text = LOCK.read_text()
    assert node_packages.render_packages(packages, text[: text.index("\n[[package]]")]) == text


def test_what_this_machine_needs_is_fetched_and_checked(registry: dict[str, bytes], tmp_path: Path) -> None:
    registry["/@org/tool/-/tool-1.0.0.tgz"] = CONTENT
    download([TOOL, NATIVE], tmp_path / "to", "aarch64")
    assert {path.name: path.read_bytes() for path in (tmp_path / "to").iterdir()} == {"@org+tool.tgz": CONTENT}


@pytest.mark.parametrize("content", [b"", CONTENT + b"x"])
def test_a_tarball_that_was_swapped_is_refused(content: bytes, registry: dict[str, bytes], tmp_path: Path) -> None:
    registry["/@org/tool/-/tool-1.0.0.tgz"] = content
    with pytest.raises(NodePackagesError, match=r"@org/tool: version 1\.0\.0 is not what was pinned"):
        download([TOOL], tmp_path / "to", platform.machine())
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize("integrity", ["", "sha1-0wpzxrggHY99jnlWupYWCHpo4O4=", PIN + " sha1-x"])
def test_without_a_strong_pin_nothing_is_taken(integrity: str, registry: dict[str, bytes], tmp_path: Path) -> None:
    registry["/@org/tool/-/tool-1.0.0.tgz"] = CONTENT
    with pytest.raises(NodePackagesError, match="has no pin"):
        download([dataclasses.replace(TOOL, integrity=integrity)], tmp_path / "to", platform.machine())


def test_pins_stay_unless_they_are_to_be_renewed(registry: dict[str, bytes]) -> None:
    assert pin([TOOL, NATIVE], upgrade=False) == [TOOL, NATIVE]
    registry |= {"/@org%2ftool": page("1.0.0", "2.0.0"), "/native": page("1.0.0", "2.0.0", "3.0.0")}
    assert [package.version for package in pin([TOOL, NATIVE], upgrade=True)] == ["2.0.0", "2.0.0"]


def test_an_executable_follows_its_package(registry: dict[str, bytes]) -> None:
    registry["/native"] = page("1.0.0", "2.0.0")
    newer = dataclasses.replace(TOOL, version="2.0.0")
    assert [package.version for package in pin([newer, NATIVE], upgrade=False)] == ["2.0.0", "2.0.0"]
    registry["/native"] = page("1.0.0")
    with pytest.raises(NodePackagesError, match=r"native: npm's page lacks '2\.0\.0'"):
        pin([newer, NATIVE], upgrade=False)


def test_a_registry_that_gives_no_strong_digest_is_refused(registry: dict[str, bytes]) -> None:
    for answer in (page("1.0.0", integrity="sha1-x"), page("1.0.0").replace(PIN.encode(), b"").replace(b'""', b"1")):
        registry["/@org%2ftool"] = answer
        with pytest.raises(NodePackagesError, match="no SHA-512"):
            pin([dataclasses.replace(TOOL, version="")], upgrade=False)


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"dist-tags": {"latest": "1.0.0"}, "versions": []}'])
def test_a_page_that_is_no_packument_is_refused(answer: bytes, registry: dict[str, bytes]) -> None:
    registry["/@org%2ftool"] = answer
    with pytest.raises(NodePackagesError, match="@org/tool: npm's page"):
        pin([TOOL], upgrade=True)


@pytest.mark.parametrize(
    ("wanted", "newest"),
    [
        ("~1.2.0", "1.2.9"),
        ("^1.2.0", "1.10.0"),
        ("^0.2.1", "0.2.3"),
        ("~1.2.10", None),
        (">=1", None),
        ("^3.0.0", None),
    ],
)
def test_what_another_package_needs_is_as_new_as_that_allows(wanted: str, newest: str | None) -> None:
    versions = ["0.2.0", "0.2.3", "0.3.0", "1.2.9", "1.10.0", "1.11.0-rc.1", "2.0.0"]
    if newest:
        assert node_packages.newest_allowed("x", versions, wanted) == newest
    else:
        with pytest.raises(NodePackagesError, match="x: "):
            node_packages.newest_allowed("x", versions, wanted)


def test_a_needed_package_follows_the_one_that_needs_it(registry: dict[str, bytes]) -> None:
    needed = NodePackage(name="needed", version="", integrity="", needed_by="@org/tool")
    user = json.loads(page("1.0.0"))
    user["versions"]["1.0.0"]["dependencies"] = {"needed": "~1.1.0"}
    registry |= {"/@org%2ftool": json.dumps(user).encode(), "/needed": page("1.1.0", "1.1.4", "2.0.0")}
    assert [package.version for package in pin([TOOL, needed], upgrade=False)] == ["1.0.0", "1.1.4"]
