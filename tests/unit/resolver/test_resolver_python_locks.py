"""Python's native locks, read on their own and as the lock that a sandbox was made from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.resolver.errors import LockError, ManifestError, ToolchainMissingError
from services.resolver.lockfile import lock_to_json
from services.resolver.model import Context, LockedPackage, Lockfile, NoticeKind, Options, Plan, Source, Target
from services.resolver.plan import plan
from services.resolver.python.manifests.poetry import specifier
from services.resolver.python.manifests.setup_program import read_setup_call
from services.resolver.python.planner import PythonPlanner

CASES = Path(__file__).parents[2] / "cases" / "resolver" / "python"
TOOLCHAIN = {"python": "3.13.5"}
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
PLANNER = PythonPlanner()
OF_CASES = {
    "uv.lock": "uv_lock",
    "pylock.toml": "pylock",
    "poetry.lock": "poetry_lock",
    "pdm.lock": "pdm_lock",
    "Pipfile.lock": "pipfile_lock",
}


def lock_of_case(name: str) -> bytes:
    case = json.loads((CASES / f"{OF_CASES[name]}.json").read_text(encoding="utf-8"))
    return str(case["files"][name]).encode()


def read(name: str, content: bytes) -> dict[str, LockedPackage]:
    return {package.name: package for package in PLANNER.read_lock(Lockfile(name=name, content=content), TOOLCHAIN)}


def planned(files: dict[str, bytes], *, given: Lockfile | None = None, options: Options | None = None) -> Plan:
    context = Context(
        toolchain=TOOLCHAIN,
        given_lock=given,
        options=options or Options(),
        registry_urls={"http://127.0.0.1:7480/pypi/": "https://registry.example/"},
    )
    return plan(files, list(files), Target(), context)


@pytest.mark.parametrize("name", OF_CASES)
def test_each_lock_is_known_by_its_name_and_its_bytes(name: str) -> None:
    content = lock_of_case(name)
    assert PLANNER.reads_lock(Lockfile(name=f"some/{name}", content=b""))
    assert PLANNER.reads_lock(Lockfile(name="upload", content=content))
    assert read("upload", content) == read(name, content)
    requests = read(name, content)["requests"]
    assert (requests.purl, requests.license) == ("pkg:pypi/requests@2.32.3", "NOASSERTION")
    assert set(requests.hashes) <= {A, B}
    assert requests.direct


def test_who_requires_whom_is_told() -> None:
    found = read("uv.lock", lock_of_case("uv.lock"))
    assert found["pysocks"].required_by == ("pkg:pypi/requests@2.32.3",)
    assert (found["pysocks"].direct, found["requests"].required_by) == (False, ())
    assert found.keys() == {"pysocks", "requests"}, "nothing for Windows, no group, not the project itself"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("package-lock.json", b'{"lockfileVersion": 3}'),
        ("upload", b""),
        ("upload", b"requests==2\n"),
        ("go.sum", b"x v1 h1:y\n"),
    ],
)
def test_other_files_are_no_lock_of_python(name: str, content: bytes) -> None:
    assert not PLANNER.reads_lock(Lockfile(name=name, content=content))


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("uv.lock", b"version = 1\n\n[[package]]\nname = 3\n", 3),
        ("uv.lock", b"version = 1\n\n[[package]]\nname = 'x'\nversion = 'one'\nsource = { registry = 'r' }\n", 3),
        ("uv.lock", b"package = 1\nversion = 1\n", 1),
        ("poetry.lock", b"[[package]]\nname = 'x'\nversion = '1'\nmarkers = 'nonsense'\n", 1),
        ("poetry.lock", b"\n[[package]]\nname = 'x'\nversion = '" + b"1." * 5000 + b"1'\n", 2),
        ("pdm.lock", b"\n[[package]]\nname = 'x'\nversion = '1'\ngit = 'https://registry.example/x'\n", 2),
        ("pylock.toml", b"lock-version = '2.0'\ncreated-by = 'x'\npackages = []\n", 1),
        ("Pipfile.lock", b'{\n"default": {\n"x": {"version": ">=1"}}}', 3),
        ("Pipfile.lock", b'{\n"default": []}', 2),
        ("Pipfile.lock", b"{\n\n", 3),
        ("requirements.txt", b"a==1 --hash=" + A.encode() + b"\nb>=1\n", 2),
        ("uv.lock", b"version = 1\nx = \xff\n", 2),
        ("uv.lock", b"version = 1\na" + b".a" * 100_000 + b" = 1\n", 2),
    ],
)
def test_a_broken_lock_is_refused_with_its_line(name: str, content: bytes, line: int) -> None:
    with pytest.raises(LockError) as caught:
        read(name, content)
    assert (caught.value.name, caught.value.line) == (name, line), str(caught.value)


def test_a_lock_is_read_for_a_python() -> None:
    with pytest.raises(ToolchainMissingError):
        PLANNER.read_lock(Lockfile(name="uv.lock", content=lock_of_case("uv.lock")), {})


def test_a_poetry_lock_alone_gives_what_its_extras_list() -> None:
    files = {"main.py": b"", "poetry.lock": lock_of_case("poetry.lock")}
    assert {item.name for item in planned(files).requirements} == {"pysocks", "requests"}
    with_extra = planned(files, options=Options(extras=("web",)))
    assert {item.name for item in with_extra.requirements} == {"flask", "pysocks", "requests"}


def test_markers_are_those_of_the_platform() -> None:
    pins = f"x==1; platform_machine == 'aarch64' --hash={A}\ny==1; platform_machine == 'x86_64' --hash={A}\n".encode()
    files = {"main.py": b"", "requirements.txt": pins}
    for platform, expected in (("linux/amd64", "y"), ("linux/arm64", "x")):
        context = Context(toolchain=TOOLCHAIN, platform=platform)
        found = plan(files, list(files), Target(), context)
        assert [item.name for item in found.requirements] == [expected]


def test_a_sandbox_made_from_its_own_lock_asks_for_the_same_packages() -> None:
    packages = [
        LockedPackage(purl="pkg:pypi/a@1.0", name="a", version="1.0", hashes=(A,), license="MIT", direct=True),
        LockedPackage(
            purl="pkg:pypi/b@2.0%2Blocal",
            name="b",
            version="2.0+local",
            hashes=(B,),
            license="MIT",
            direct=False,
            required_by=("pkg:pypi/a@1.0",),
        ),
    ]
    content = lock_to_json("python", packages, TOOLCHAIN)
    found = planned({"main.py": b""}, given=Lockfile(name="qila.lock.json", content=content))
    assert found.source is Source.LOCK
    assert [item.specifier for item in found.requirements] == ["a==1.0"], "only what is direct in the lock stays direct"
    (staged,) = found.staged
    assert staged.content.decode() == f"a==1.0 --hash={A}\nb==2.0+local --hash={B}\n"
    assert (
        found.requirements[0].origins[0].line
        == content.decode().split("\n").index('      "purl": "pkg:pypi/a@1.0",') + 1
    )


def test_a_lock_that_drifted_is_preferred_in_the_solve() -> None:
    case = json.loads((CASES / "uv_lock_drift.json").read_text(encoding="utf-8"))
    found = planned({path: text.encode() for path, text in case["files"].items()})
    staged = [file.content.decode() for file in found.staged]
    assert any(all(text in content for text in ("pysocks", "1.7.1", "2.32.3")) for content in staged)
    (notice,) = [item for item in found.notices if item.kind is NoticeKind.LOCK_DRIFT]
    assert "uv.lock:27 locks 2.32.3" in notice.detail


def test_another_registry_in_a_lock_is_named_once_with_its_line() -> None:
    elsewhere = lock_of_case("uv.lock").replace(b"https://registry.example/simple", b"https://other.example/simple")
    notices = planned({"main.py": b"", "uv.lock": elsewhere}).notices
    assert [(item.kind, item.line, item.subject) for item in notices] == [
        (NoticeKind.SETTING_IGNORED, 19, "https://other.example/simple")
    ]
    assert not planned({"main.py": b"", "uv.lock": lock_of_case("uv.lock")}).notices


def test_an_index_option_that_names_the_registry_itself_changes_nothing() -> None:
    files = {"main.py": b"", "requirements.txt": b"-i https://registry.example/simple\nrich\n"}
    assert [item.name for item in planned(files).requirements] == ["rich"]
    with pytest.raises(ManifestError):
        planned({**files, "requirements.txt": b"-i https://registry.example.org/simple\nrich\n"})


def test_extras_change_the_fingerprint() -> None:
    text = b"[project]\nname = 'x'\ndependencies = ['rich']\n[project.optional-dependencies]\nweb = ['flask']\n"
    files = {"main.py": b"", "pyproject.toml": text}
    assert planned(files).fingerprint != planned(files, options=Options(extras=("web",))).fingerprint


def test_a_block_and_not_the_program_around_it_decides_the_fingerprint() -> None:
    block = b"# /// script\n# dependencies = ['rich']\n# ///\n"
    one, other = planned({"main.py": block}), planned({"main.py": block + b"print()\n"})
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != planned({"main.py": block.replace(b"rich", b"attrs")}).fingerprint


def test_a_thousandfold_pile_of_includes_is_read_once() -> None:
    files = {f"requirements{n}.txt": f"-r requirements{n + 1}.txt\n".encode() * 3 for n in range(14)}
    files |= {"main.py": b"", "requirements.txt": b"-r requirements0.txt\n", "requirements14.txt": b"rich\n"}
    assert [item.name for item in planned(files).requirements] == ["rich"]


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("^1.2.3", ">=1.2.3,<2"),
        ("^0.2.3", ">=0.2.3,<0.3"),
        ("^0.0.3", ">=0.0.3,<0.0.4"),
        ("^0.0", ">=0.0,<0.1"),
        ("^0", ">=0,<1"),
        ("~1.2.3", ">=1.2.3,<1.3"),
        ("~1", ">=1,<2"),
        ("*", ""),
        ("1.2.*", "==1.2.*"),
        ("1.2", "==1.2"),
        ("= 1.2", "==1.2"),
        (">=1.2 <2,!=1.5", ">=1.2,<2,!=1.5"),
        ("~=1.2", "~=1.2"),
        ("^1.0b1", ">=1.0b1,<2"),
    ],
)
def test_poetrys_notation(constraint: str, expected: str) -> None:
    assert specifier(constraint) == expected


def test_a_setup_program_is_read_and_not_run() -> None:
    call = read_setup_call(
        b"import os\nos.abort()\nfrom setuptools import setup\nsetup(name='x', install_requires=f())\n"
    )
    assert call is not None
    assert call.value("name") == ("x", 4)
    assert call.computed == frozenset({"install_requires"})
