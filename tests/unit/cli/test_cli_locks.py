"""Locks, SBOMs and comparisons on the command line."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from markdown_it import MarkdownIt

from qila.cli import diffs
from qila.cli.__main__ import call
from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceServicer, add_GatewayServiceServicer_to_server
from services.resolver.lockfile import lock_to_json
from services.resolver.model import LockedPackage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SANDBOX = "sb_" + "a" * 26
EXEC = "ex_" + "b" * 26
ONE, OTHER = ("sha256:" + digit * 64 for digit in "ab")
HOSTILE = "x`|</code></details>\\|\n\x1b[2J www.example.com @all [a](https://example.com) <img src=x>"


class FakeGateway(GatewayServiceServicer):
    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.changes: list[pb.PackageChange] = []
        self.native = b"native"
        self.projects: list[pb.ProjectLock] = []

    def GetLock(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        self.requests.append(request)
        return pb.GetLockResponse(lock=b"normal", native_lock=self.native, projects=self.projects)

    def GetSbom(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        self.requests.append(request)
        yield from (pb.GetSbomResponse(chunk=chunk) for chunk in (b"\xffone", b"two"))

    def DiffLocks(self, request, context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, N802 - gRPC's
        self.requests.append(request)
        return pb.DiffLocksResponse(changes=self.changes, unchanged_count=1)


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    fake = FakeGateway()  # type: ignore[abstract]  # calls that no test makes answer UNIMPLEMENTED
    server = grpc.server(ThreadPoolExecutor(2))
    add_GatewayServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    monkeypatch.setenv("QILA_GATEWAY_ADDRESS", f"127.0.0.1:{port}")
    server.start()
    yield fake
    server.stop(0).wait()


@pytest.fixture
def no_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QILA_GATEWAY_ADDRESS", "127.0.0.1:1")


def package(name: str, version: str = "1.0", **values: Any) -> LockedPackage:
    fields: dict[str, Any] = {"hashes": (ONE,), "license": "MIT", "direct": True}
    return LockedPackage(purl=f"pkg:pypi/{name}@{version}", name=name, version=version, **(fields | values))


def write(path: Path, *packages: LockedPackage) -> str:
    path.write_bytes(lock_to_json("python", packages, {"python": "3.13.5"}))
    return str(path)


def message(name: str, version: str = "1.0", **fields: Any) -> pb.LockedPackage:
    return pb.LockedPackage(purl=f"pkg:pypi/{name}@{version}", name=name, version=version, **fields)


def test_a_lock_is_printed_as_it_is(gateway: FakeGateway, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert call(["lock", SANDBOX, EXEC]) == 0
    assert call(["lock", "--native", SANDBOX]) == 0
    assert capfdbinary.readouterr().out == b"normalnative"
    assert [(item.sandbox_id, item.exec_id) for item in gateway.requests] == [(SANDBOX, EXEC), (SANDBOX, "")]
    gateway.native = b""
    assert call(["lock", "--native", SANDBOX]) == 125
    assert b"no native lock" in capfdbinary.readouterr().err


@pytest.mark.parametrize(
    ("options", "number"),
    [([], pb.SBOM_FORMAT_CYCLONEDX_1_6), (["--format", "spdx"], pb.SBOM_FORMAT_SPDX_2_3)],
)
def test_an_sbom_is_printed_as_it_is(
    gateway: FakeGateway, capfdbinary: pytest.CaptureFixture[bytes], options: list[str], number: int
) -> None:
    assert call(["sbom", *options, SANDBOX, EXEC]) == 0
    assert capfdbinary.readouterr().out == b"\xffonetwo"
    (request,) = gateway.requests
    assert (request.sandbox_id, request.exec_id, request.format) == (SANDBOX, EXEC, number)


def test_documents_cannot_steer_a_terminal(
    gateway: FakeGateway, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.native = b"{\n\t\x1b[2J\xff\r\n}\n"
    assert call(["lock", "--native", SANDBOX]) == 0
    assert capfdbinary.readouterr().out == gateway.native
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert call(["lock", "--native", SANDBOX]) == 0
    assert capfdbinary.readouterr().out.decode() == "{\n\t\ufffd[2J\ufffd\n}\n"
    assert call(["sbom", SANDBOX, EXEC]) == 0
    assert capfdbinary.readouterr().out.decode() == "\ufffdonetwo"


def test_each_side_of_a_comparison_is_a_sandbox_an_exec_or_a_file(gateway: FakeGateway, tmp_path: Path) -> None:
    file = write(tmp_path / "x.lock.json", package("a"))
    assert call(["diff", SANDBOX, f"{SANDBOX}:{EXEC}"]) == 0
    gateway.changes = [pb.PackageChange(after=message("a"))]
    assert call(["diff", file, SANDBOX]) == 1
    first, second = gateway.requests
    assert first.before.exec == pb.ExecReference(sandbox_id=SANDBOX)
    assert first.after.exec == pb.ExecReference(sandbox_id=SANDBOX, exec_id=EXEC)
    assert second.before.lock.name == "x.lock.json"
    assert second.before.lock.content == (tmp_path / "x.lock.json").read_bytes()


@pytest.mark.parametrize("words", [["missing.json", SANDBOX], [f"{SANDBOX}:", SANDBOX], [".", SANDBOX], [SANDBOX]])
def test_a_side_that_is_nothing_is_refused(gateway: FakeGateway, words: list[str]) -> None:
    assert call(["diff", *words]) == 125
    assert gateway.requests == []


@pytest.mark.usefixtures("no_gateway")
def test_two_files_need_no_service(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = write(
        tmp_path / "a.json",
        package("gone"),
        package("kept"),
        package("swapped", direct=False, required_by=tuple(f"pkg:pypi/r{number}@1" for number in range(5))),
        package("newer"),
    )
    after = write(
        tmp_path / "b.json",
        package("kept"),
        package("swapped", hashes=(OTHER,)),
        package("newer", "1.1", license="ISC", hashes=(OTHER,)),
        package("new", direct=False, required_by=("pkg:pypi/newer@1.1",)),
    )
    assert call(["diff", before, before]) == 0
    assert capfd.readouterr().out == "No package differs; 4 are the same\n"
    assert call(["diff", before, after]) == 1
    assert capfd.readouterr().out.splitlines() == [
        "- pkg:pypi/gone 1.0  (direct)",
        "+ pkg:pypi/new 1.0  (required by newer@1.1)",
        "~ pkg:pypi/newer 1.0 -> 1.1  (direct)",
        "    licence: MIT -> ISC",
        "~ pkg:pypi/swapped 1.0  (direct)",
        f"    hash - {ONE}",
        f"    hash + {OTHER}",
        "4 packages differ: 1 added, 1 removed, 2 changed; 1 is the same",
    ]
    assert call(["diff", "--format", "json", before, after]) == 1
    document = json.loads(capfd.readouterr().out)
    assert {key: document[key] for key in ("added", "removed", "changed", "unchanged")} == {
        "added": 1, "removed": 1, "changed": 2, "unchanged": 1,
    }  # fmt: skip
    newer = document["changes"][2]
    assert (newer["kind"], newer["purl"]) == ("changed", "pkg:pypi/newer")
    assert newer["changed"] == ["version", "hashes", "license"]
    assert newer["after"]["required_by"] == []
    assert call(["diff", "--format", "markdown", after, before]) == 1
    assert (
        "| `pkg:pypi/swapped` | `1.0` | `1.0` | **hashes of the same version** | `r0@1`, `r1@1`, `r2@1`, `2 more` |"
        in (capfd.readouterr().out)
    )


@pytest.mark.usefixtures("no_gateway")
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path / "qila.lock.json", package("a"))
    bad = tmp_path / "other" / "qila.lock.json"
    bad.parent.mkdir()
    bad.write_text('{\n"format": 1,\n]')
    assert call(["diff", good, str(bad)]) == 125
    assert f"{bad}: line 3: is not JSON" in capfd.readouterr().err


@pytest.mark.usefixtures("no_gateway")
def test_a_pipe_is_as_good_as_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "qila.lock.json", package("a"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes((tmp_path / "qila.lock.json").read_bytes()))
    writer.start()
    assert call(["diff", str(pipe), file]) == 0
    writer.join()


def hostile() -> pb.DiffLocksResponse:
    package_ = message(HOSTILE, HOSTILE, license="NOASSERTION", license_text=HOSTILE, required_by=[HOSTILE])
    other = message(HOSTILE, HOSTILE, license="MIT")
    return pb.DiffLocksResponse(changes=[pb.PackageChange(before=other, after=package_)])


def test_a_review_comment_has_no_markup_of_strangers() -> None:
    text = diffs.as_markdown(hostile())
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text)
    assert html.count("<tr>") == 2
    assert len(re.findall("<td>", html)) == 5
    assert set(re.findall(r"</?[a-z]+", html)) == {
        f"{mark}{name}"
        for mark in ("<", "</")
        for name in ("p", "strong", "table", "thead", "tbody", "tr", "th", "td", "code")
    }
    assert "www." not in text
    assert "@all" not in text


def test_text_is_one_line_and_cannot_steer_the_terminal() -> None:
    lines = [line.plain for line in diffs.as_text(hostile())]
    assert all(line.isprintable() for line in lines)
    assert len(lines) == 3


def test_a_long_table_is_folded_and_a_longer_one_cut() -> None:
    few = [pb.PackageChange(after=message(f"p{number}")) for number in range(30)]
    folded = diffs.as_markdown(pb.DiffLocksResponse(changes=few))
    assert "<details>" in folded
    assert folded.count("\n| `pkg:") == 30
    many = [pb.PackageChange(after=message(f"p{number}")) for number in range(5000)]
    cut = diffs.as_markdown(pb.DiffLocksResponse(changes=many))
    assert len(cut) < 65_536
    shown = cut.count("\n| `pkg:")
    assert f"| {5000 - shown} more |" in cut


PYLOCK = """lock-version = "1.0"
created-by = "uv"

[[packages]]
name = "idna"
version = "3.20"
wheels = [{{ url = "https://example.com/idna-3.20-py3-none-any.whl", size = 1, hashes = {{ sha256 = "{digits}" }} }}]
"""


@pytest.mark.usefixtures("no_gateway")
def test_locks_of_different_kinds_are_compared(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    native = tmp_path / "pylock.toml"
    native.write_text(PYLOCK.format(digits="a" * 64))
    pinned = tmp_path / "requirements.txt"
    pinned.write_text(f"idna==3.20 --hash={ONE}\n")
    normal = write(tmp_path / "qila.lock.json", package("idna", "3.20", license="BSD-3-Clause", direct=False))
    assert call(["diff", str(native), str(pinned)]) == 0
    assert call(["diff", normal, str(native)]) == 0
    native.write_text(PYLOCK.format(digits="b" * 64))
    capfd.readouterr()
    assert call(["diff", normal, str(native)]) == 1
    assert f"hash + {OTHER}" in capfd.readouterr().out
    (tmp_path / "notes.txt").write_text("hello")
    assert call(["diff", normal, str(tmp_path / "notes.txt")]) == 125
    assert "neither a qila.lock.json nor a lock" in capfd.readouterr().err


def test_lock_of_one_project(gateway: FakeGateway, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    gateway.projects = [
        pb.ProjectLock(project=project, ecosystem=ecosystem, lock=ecosystem.encode(), native_lock=project.encode())
        for project, ecosystem in ((".", "python"), ("web", "node"), ("web", "go"))
    ]
    printed = {}
    for options in (("--project", "."), ("--project", "web/", "--language", "go"), ("--native", "--language", "node")):
        assert call(["lock", *options, SANDBOX]) == 0
        printed[options] = capfdbinary.readouterr().out
    assert list(printed.values()) == [b"python", b"go", b"web"]
    for project in ("web", "elsewhere"):
        assert call(["lock", "--project", project, SANDBOX]) == 125
        assert b"there is . (python), web (node), web (go)" in capfdbinary.readouterr().err


def test_files_of_several_projects_are_compared(
    tmp_path: Path, no_gateway: None, capsys: pytest.CaptureFixture[str]
) -> None:
    locks = []
    for version in ("1.0", "2.0"):
        single = json.loads(lock_to_json("python", [package("idna", version)], {"python": "3.13.5"}))
        path = tmp_path / f"{version}.json"
        path.write_text(json.dumps({"format": 1, "locks": [{**single, "project": "backend"}]}))
        locks.append(str(path))
    assert call(["diff", *locks, "--format", "json"]) == 1
    assert "idna" in capsys.readouterr().out
