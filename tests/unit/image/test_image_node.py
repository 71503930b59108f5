"""The image's programs around npm: what they print, list and complete, from input that strangers wrote."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from sandbox.image.node import complete_lock, inventory, run_npm

DOOR = "http://127.0.0.1:7480/npm/"


def package(root: Path, location: str, manifest: object) -> None:
    directory = root / location
    directory.mkdir(parents=True)
    (directory / "package.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))


def test_everything_below_a_directory_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outer = {"name": "a", "version": "1.0.0", "license": {"type": "MIT"}, "scripts": {"install": "x"}, "bin": "a.js"}
    package(tmp_path, "node_modules/a", outer | {"dependencies": {"b": "2"}, "peerDependencies": {"c": "*"}})
    package(
        tmp_path, "node_modules/a/node_modules/@s/b", {"name": "@s/b", "version": "2.0.0", "licenses": ["MIT", "ISC"]}
    )
    package(tmp_path, "node_modules/broken", "[" * 100_000)
    package(tmp_path, "node_modules/.hidden", {"name": "hidden", "version": "1.0.0"})
    package(tmp_path, "elsewhere", {"name": "elsewhere", "version": "1.0.0"})
    (tmp_path / "node_modules/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "node_modules/file").write_text("")
    (tmp_path / "node_modules/empty/node_modules").mkdir(parents=True)
    (tmp_path / "node_modules/@s").mkdir()
    (tmp_path / "node_modules/@s/evil.js").write_text("")
    (tmp_path / "node_modules/pipe").mkdir()
    os.mkfifo(tmp_path / "node_modules/pipe/package.json")
    assert inventory.main([str(tmp_path)]) == 0
    document = json.loads(capsys.readouterr().out)
    first, second = document["packages"]
    assert (first["location"], first["name"], first["version"], first["license"]) == (
        "node_modules/a", "a", "1.0.0", ["MIT"],
    )  # fmt: skip
    assert (first["dependencies"], first["peer_dependencies"], first["bin"]) == (["b"], ["c"], ["a"])
    assert first["has_install_script"]
    assert document["unknown"] == [f"node_modules/{name}" for name in ("@s/evil.js", "broken", "file", "pipe")]
    assert (second["location"], second["license"]) == ("node_modules/a/node_modules/@s/b", ["MIT", "ISC"])


def test_a_place_without_packages_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    package(tmp_path, "environment/node_modules/a", {"name": "a", "version": "1.0.0"})
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/node_modules").symlink_to(tmp_path / "environment/node_modules")
    for directory in (tmp_path, tmp_path / "linked"):
        assert inventory.main([str(directory)]) == 0
        assert json.loads(capsys.readouterr().out)["packages"] == []


def test_more_packages_than_anybody_installs_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "PACKAGE_LIMIT", 1)
    for name in ("a", "b"):
        package(tmp_path, f"node_modules/{name}", {"name": name, "version": "1.0.0"})
    assert inventory.main([str(tmp_path)]) == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (f"npm http fetch GET 200 {DOOR}@a/b/-/b-1.0.0.tgz 12ms (cache miss)", "Downloading @a/b@1.0.0"),
        (f"npm http fetch GET 200 {DOOR}left-pad 44ms (cache miss)", None),
        ("npm info run a@1.0.0 postinstall node_modules/a node x.js", "Building a@1.0.0"),
        ("npm info run a@1.0.0 postinstall { code: 0, signal: null }", "Built a@1.0.0"),
        ("npm info run a@1.0.0 postinstall { code: 1, signal: null }", None),
        ("npm info using npm@11.0.0", None),
        ("npm warn deprecated a@1.0.0: no longer", "npm warn deprecated a@1.0.0: no longer"),
        ("added 3 packages in 7s", "added 3 packages in 7s"),
    ],
)
def test_npms_lines_become_ours(line: str, told: str | None) -> None:
    assert run_npm.Translator()(line) == told


LOCK: dict[str, Any] = {
    "lockfileVersion": 3,
    "packages": {
        "": {},
        "node_modules/a": {"version": "1.0.0", "integrity": "sha512-a"},
        "node_modules/gone": {"version": "1.0.0"},
    },
}


@pytest.mark.parametrize("intro", ["Integrity", "sha512-a integrity"])
def test_a_command_runs_where_its_files_are(
    intro: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package.json").write_text("{}")
    (tmp_path / "package-lock.json").write_text(json.dumps(LOCK))
    target = tmp_path / "env/one"
    package(target, "node_modules/a", {})
    words = f"npm error {intro} checksum failed when using sha512: wanted sha512-a but got sha512-b. (1 bytes)"
    command = [str(target), DOOR, "--", sys.executable, "-c"]
    assert run_npm.main([*command, f"print({words!r}); print('x' * 100_000); print('end', end='')"]) == 0
    said = capfd.readouterr().out
    assert "lock: a@1.0.0: the lock says sha512-a, the registry has sha512-b." in said
    assert said.count("x") == 100_000
    assert "\nend\n" in said
    assert "+ a@1.0.0\n" in said
    assert "gone" not in said
    assert run_npm.main([*command, "import os; os.abort()"]) == 128 + 6
    (tmp_path / "package.json").unlink()
    assert run_npm.main([*command, "pass"]) == 1


NPM = """import json, pathlib, sys
lock = pathlib.Path(sys.argv[-1], "package-lock.json")
packages = json.loads(lock.read_text())["packages"] if lock.exists() else {}
print(json.dumps({at: entry.get("resolved") for at, entry in packages.items()}))
lock.write_text('{"packages": {"": {"made": true}}}')
"""


@pytest.mark.parametrize("verb", ["install", "ci"])
def test_npm_is_told_where_the_packages_of_a_lock_are(
    verb: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package.json").write_text("{}")
    entry = {"version": "2.0.0-rc.1", "integrity": "sha512-b"}
    more = {
        "node_modules/a/node_modules/c": {**entry, "name": "@s/b"},
        "node_modules/built": {**entry, "version": "1.0.0+x"},
        "node_modules/local": {"resolved": "../local", "link": True},
    }
    lock = {**LOCK, "packages": {**LOCK["packages"], **more}}
    (tmp_path / "package-lock.json").write_text(json.dumps(lock))
    assert run_npm.main(["env", DOOR, "--", sys.executable, "-c", NPM, verb]) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[0]) == {
        "": None,
        "node_modules/a": f"{DOOR}a/-/a-1.0.0.tgz",
        "node_modules/gone": None,
        "node_modules/a/node_modules/c": f"{DOOR}@s/b/-/b-2.0.0-rc.1.tgz",
        "node_modules/built": None,
        "node_modules/local": "../local",
    }
    left = json.loads((tmp_path / "package-lock.json").read_text())
    assert left == ({"packages": {"": {"made": True}}} if verb == "install" else lock)


def complete(lock: dict[str, Any], pages: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package-lock.json").write_text(json.dumps(lock))

    def answer(request: Any, timeout: float) -> io.BytesIO:
        assert timeout
        return io.BytesIO(json.dumps({"versions": pages[unquote(request.full_url.removeprefix(DOOR))]}).encode())

    monkeypatch.setattr("urllib.request.urlopen", answer)
    return complete_lock.main([DOOR])


SHA1 = "sha1-0wpzxrggHY99jnlWupYWCHpo4O4="
RELEASE = {
    "dist": {"integrity": "sha512-x", "shasum": "d30a73c6b8201d8f7d8e7956ba9616087a68e0ee"},
    "bin": {"a": "a.js"},
}


@pytest.mark.parametrize(
    ("locked", "code", "integrity"),
    [
        ("", 0, "sha512-x"),
        ("sha512-x", 0, "sha512-x"),
        (SHA1, 0, "sha512-x"),
        ("sha384-y", 0, "sha384-y"),
        ("sha512-y", 1, "sha512-y"),
        ("sha1-other", 1, "sha1-other"),
    ],
)
def test_a_lock_is_completed_and_its_hash_honoured(
    locked: str, code: int, integrity: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = {"version": "1.0.0", "integrity": locked}
    lock = {"packages": {"": {}, "node_modules/b": entry | {"name": "@s/a"}}}
    assert complete(lock, {"@s/a": {"1.0.0": RELEASE}}, monkeypatch, tmp_path) == code
    done = json.loads((tmp_path / "package-lock.json").read_text())["packages"]["node_modules/b"]
    assert done["integrity"] == integrity
    assert ("bin" in done) == (code == 0)


def test_of_a_page_only_what_is_wanted_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    versions: dict[str, Any] = {f"{number}.0.0": RELEASE | {"dependencies": {"x": "1"}} for number in range(9)}
    versions["7.0.0"] = "odd"
    monkeypatch.setattr(
        "urllib.request.urlopen", lambda *_, **__: io.BytesIO(json.dumps({"versions": versions}).encode())
    )
    assert complete_lock.page(DOOR, "a", {"2.0.0", "7.0.0", "12.0.0"}) == {"2.0.0": RELEASE}


def test_a_version_that_is_not_there_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = {"packages": {"node_modules/a": {"version": "2.0.0"}}}
    assert complete(lock, {"a": {"1.0.0": RELEASE}}, monkeypatch, tmp_path) == 1
    assert capsys.readouterr().err == "lock: a@2.0.0: npm has no such version, or policy leaves it out\n"


def test_what_came_in_an_archive_is_listed_where_the_archive_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inside = {"version": "1.0.0", "inBundle": True}
    packages: dict[str, Any] = {f"node_modules/{name}": {"version": "1.0.0"} for name in ("a", "b")}
    packages |= {f"node_modules/{name}/node_modules/c": dict(inside) for name in ("a", "b")}
    pages = {"a": {"1.0.0": RELEASE | {"bundleDependencies": ["c"]}}, "b": {"1.0.0": RELEASE}}
    assert complete({"packages": packages}, pages, monkeypatch, tmp_path) == 0
    done = json.loads((tmp_path / "package-lock.json").read_text())["packages"]
    assert sorted(done) == ["node_modules/a", "node_modules/a/node_modules/c", "node_modules/b"]
