from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from child_calls import BROKEN_OFF, call  # type: ignore[import-not-found]  # pytest puts this directory on the path

from sandbox.sandboxd.qila_sandboxd import comparing, tar_members, transfers, tree_reading, trees
from sandbox.sandboxd.qila_sandboxd.frames import MAXIMUM_PAYLOAD

HELD = transfers.DIRECTORY


def member(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as made:
        for info, data in members:
            made.addfile(info, io.BytesIO(data))
    return file.getvalue()


def parts(data: bytes) -> Iterator[bytes]:
    return (data[start : start + 65536] for start in range(0, len(data), 65536))


def put(root: Path, data: bytes, path: str = "", **fields: Any) -> dict[str, Any]:
    end: dict[str, Any] = call(root, "write_tree", parts(data), path=path, **fields)[0]
    return end


def files(root: Path) -> dict[str, str]:
    """What is in a workspace beside what is held."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(".home"):
            found[name] = (
                str(path.readlink())
                if path.is_symlink()
                else path.read_bytes().decode(errors="replace")
                if path.is_file()
                else "/"
            )
    return found


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_tree_is_unpacked(tmp_path: Path, form: int) -> None:
    long = "/".join(["d" * 60] * (3 if form == tarfile.USTAR_FORMAT else 6))
    data = archive(
        member("./", type=tarfile.DIRTYPE),
        member("./a", b"1", mode=0o755),
        member(f"{long}/b", b"2" * 100_000),
        member("empty", type=tarfile.DIRTYPE),
        member("x/y/link", type=tarfile.SYMTYPE, linkname="../../a"),
        form=form,
    )
    result = put(tmp_path, data, path="t", sha256=hashlib.sha256(data).hexdigest())
    assert (result["size"], result["file_count"]) == (len(data), 3)
    found = files(tmp_path / "t")
    assert (found["a"], found["empty"], found["x/y/link"]) == ("1", "/", "../../a")
    assert found[f"{long}/b"] == "2" * 100_000
    assert [(tmp_path / "t" / name).stat().st_mode & 0o777 for name in ("a", f"{long}/b")] == [0o755, 0o644]
    assert list((tmp_path / HELD).iterdir()) == []


def test_a_tree_replaces_files_and_links_and_leaves_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "rest").write_text("rest")
    (tmp_path / "link").symlink_to("rest")
    assert put(tmp_path, archive(member("a", b"new"), member("link", b"file")))["type"] == "result"
    assert files(tmp_path) == {"a": "new", "link": "file", "rest": "rest"}


REFUSED = {
    "parent": ("invalid_path", [member("../x", b"1")]),
    "parent inside": ("invalid_path", [member("a/../../x", b"1")]),
    "absolute": ("invalid_path", [member("/etc/passwd", b"1")]),
    "long name": ("invalid_path", [member("x" * 256, b"1")]),
    "name of a megabyte": ("invalid_tree", [member("x" * (1 << 20), b"1")]),
    "NUL": ("invalid_path", [member("a", b"1", pax_headers={"path": "a\0b"})]),
    "deep": ("invalid_tree", [member("a/" * 64 + "b", b"1")]),
    "hard link": ("invalid_tree", [member("h", type=tarfile.LNKTYPE, linkname="/etc/passwd")]),
    "device": ("invalid_tree", [member("d", type=tarfile.CHRTYPE, devmajor=1, devminor=5)]),
    "block device": ("invalid_tree", [member("d", type=tarfile.BLKTYPE)]),
    "FIFO": ("invalid_tree", [member("f", type=tarfile.FIFOTYPE)]),
    "sparse": ("invalid_tree", [member("s", b"1", type=tarfile.GNUTYPE_SPARSE)]),
    "sparse by pax": ("invalid_tree", [member("s", b"1", pax_headers={"GNU.sparse.realsize": "9" * 18})]),
    "unknown type": ("invalid_tree", [member("s", type=b"Z")]),
    "absolute link": ("invalid_tree", [member("l", type=tarfile.SYMTYPE, linkname="/etc")]),
    "link out": ("invalid_tree", [member("a/l", type=tarfile.SYMTYPE, linkname="../../x")]),
    "link out by another": ("invalid_tree", [member("l", type=tarfile.SYMTYPE, linkname="b/../..")]),
    "through a link": ("invalid_tree", [member("l", type=tarfile.SYMTYPE, linkname="d"), member("l/x", b"1")]),
    "below a file": ("invalid_tree", [member("f", b"1"), member("f/x", b"1")]),
    "twice": ("invalid_tree", [member("a", b"1"), member("a", b"2")]),
    "twice, spelled": ("invalid_tree", [member("a", b"1"), member("./a", b"2")]),
    "no size": ("invalid_tree", [member("a", b"1", pax_headers={"size": "-1"})]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_members_are_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    kind, members = REFUSED[name]
    end = put(tmp_path, archive(member("first", b"1"), *members))
    assert (end["type"], end["kind"]) == ("error", kind), end
    assert files(tmp_path) == {}
    assert list((tmp_path / HELD).iterdir()) == []


def test_a_member_that_claims_more_than_there_is(tmp_path: Path) -> None:
    info = tarfile.TarInfo("bomb")
    info.size = 1 << 62
    end = put(tmp_path, info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    assert (end["kind"], files(tmp_path)) == ("invalid_tree", {})


@pytest.mark.parametrize("cut", [100, 512, 700, 1024 + 512])
def test_an_archive_that_was_cut_is_refused(tmp_path: Path, cut: int) -> None:
    assert put(tmp_path, archive(member("a", b"1"), member("b", b"2"))[:cut])["kind"] == "invalid_tree"
    assert files(tmp_path) == {}


def test_an_archive_of_garbage_is_refused(tmp_path: Path) -> None:
    assert put(tmp_path, os.urandom(4096))["kind"] == "invalid_tree"
    data = bytearray(archive(member("a", b"1"), member("b", b"2")))
    data[1024] ^= 1
    assert put(tmp_path, bytes(data))["kind"] == "invalid_tree"
    assert files(tmp_path) == {}


def test_too_many_members_and_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_members, "MAXIMUM_MEMBERS", 10)
    assert put(tmp_path, archive(*(member(f"f{n}") for n in range(11))))["kind"] == "too_large"
    monkeypatch.setattr(tar_members, "_MAXIMUM_HEADERS", 10)
    comment = member("a", pax_headers={"comment": "x"})
    assert put(tmp_path, archive(*(member(f"f{n}", pax_headers=comment[0].pax_headers) for n in range(9)))) == {
        "type": "error",
        "kind": "too_large",
        "message": "more than 10 headers; send the tree in parts",
    }


def test_a_stream_above_the_bound_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "MAXIMUM_BYTES", 70_000)
    assert put(tmp_path, bytes(140_000), transfer="t")["kind"] == "too_large"
    assert list((tmp_path / HELD).iterdir()) == []


def test_what_is_in_the_way_is_told_before_anything_is_moved(tmp_path: Path) -> None:
    (tmp_path / "z").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "y").symlink_to("elsewhere")
    assert put(tmp_path, archive(member("a", b"1"), member("z", b"1")))["kind"] == "is_a_directory"
    assert put(tmp_path, archive(member("a", b"1"), member("y/f", b"1")))["kind"] == "not_a_directory"
    assert put(tmp_path, archive(member("a", b"1"), member("y", type=tarfile.DIRTYPE)))["kind"] == "not_a_directory"
    assert files(tmp_path) == {"elsewhere": "/", "y": "elsewhere", "z": "/"}


def test_a_tree_that_broke_off_goes_on_at_its_offset(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    data = archive(member("a", b"new" * 50_000))
    assert put(tmp_path, data[:70_000], transfer="t-1", sha256=BROKEN_OFF) == {}
    assert files(tmp_path) == {"a": "old"}
    assert call(tmp_path, "transfer", transfer="t-1")[0]["size"] == 70_000
    assert call(tmp_path, "transfer", transfer="other")[0]["size"] == 0
    assert put(tmp_path, b"", transfer="t-1", offset=70_001)["kind"] == "out_of_range"
    digest = hashlib.sha256(data).hexdigest()
    assert put(tmp_path, data[60_000:], transfer="t-1", offset=60_000, sha256=digest)["sha256"] == digest
    assert files(tmp_path) == {"a": "new" * 50_000}
    assert list((tmp_path / HELD).iterdir()) == []


def test_a_stream_without_a_name_that_broke_off_leaves_nothing(tmp_path: Path) -> None:
    assert put(tmp_path, archive(member("a", b"1"))[:600], sha256=BROKEN_OFF) == {}
    assert list((tmp_path / HELD).iterdir()) == []


def test_a_wrong_digest_drops_what_is_held(tmp_path: Path) -> None:
    end = put(tmp_path, archive(member("a", b"1")), transfer="t", sha256="0" * 64)
    assert (end["kind"], files(tmp_path)) == ("digest_mismatch", {})
    assert list((tmp_path / HELD).iterdir()) == []


def test_a_file_goes_on_at_its_offset(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    fields = {"path": "a", "executable": True, "transfer": "t"}
    assert call(tmp_path, "write", [b"0123"], sha256=BROKEN_OFF, **fields)[0] == {}
    assert (tmp_path / "a").read_text() == "old"
    digest = hashlib.sha256(b"0123456").hexdigest()
    end, _ = call(tmp_path, "write", [b"23456"], sha256=digest, offset=2, **fields)
    assert (end["size"], end["sha256"]) == (7, digest)
    assert ((tmp_path / "a").read_text(), (tmp_path / "a").stat().st_mode & 0o777) == ("0123456", 0o755)
    assert call(tmp_path, "write", [b"x"], sha256="0" * 64, path="a", executable=False)[0]["kind"] == "digest_mismatch"
    assert (tmp_path / "a").read_text() == "0123456"


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".", "a" * 65, "a.once"])
def test_bad_names_of_transfers(tmp_path: Path, name: str) -> None:
    assert call(tmp_path, "transfer", transfer=name)[0]["kind"] == "invalid_path"


def test_held_transfers_are_bounded_in_number_and_age(tmp_path: Path) -> None:
    held = tmp_path / HELD
    held.mkdir(parents=True)
    for number in range(20):
        (held / f"t{number}").write_bytes(b"x")
        os.utime(held / f"t{number}", (time.time() - 1000 - number,) * 2)
    (held / "old").write_bytes(b"x")
    os.utime(held / "old", (time.time() - 25 * 3600,) * 2)
    (held / "left.stage").mkdir()
    (held / "left.once").write_bytes(b"x")
    (held / "used.once").write_bytes(b"x")
    with (held / "used.once").open() as used:
        fcntl.flock(used, fcntl.LOCK_EX)
        put(tmp_path, b"x", transfer="new", sha256=BROKEN_OFF)
    assert {path.name for path in held.iterdir()} == {"new", "used.once"} | {f"t{number}" for number in range(15)}


def test_two_streams_of_one_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "_LOCK_SECONDS", 0.2)
    put(tmp_path, b"x", transfer="t", sha256=BROKEN_OFF)
    with (tmp_path / HELD / "t").open() as used:
        fcntl.flock(used, fcntl.LOCK_EX)
        assert put(tmp_path, b"y", transfer="t")["kind"] == "busy"
    assert (tmp_path / HELD / "t").read_bytes() == b"x"


def get(root: Path, path: str = "", *, etag: str = "", offset: int = 0) -> tuple[dict[str, Any], bytes, dict[str, Any]]:
    end, data = call(root, "read_tree", path=path, etag=etag, offset=offset)
    return end, b"".join(payload for _, payload in data), data[0][0] if data else {}


def tree(root: Path) -> None:
    (root / "d/e").mkdir(parents=True)
    (root / "d/big").write_bytes(os.urandom(200_000))
    (root / "d/e/tool").write_text("#!")
    (root / "d/e/tool").chmod(0o750)
    (root / "d/in").symlink_to("e/tool")
    (root / "d/out").symlink_to("/etc")
    (root / ("n" * 200)).write_text("long")
    os.mkfifo(root / "fifo")
    (root / ".home").mkdir()
    (root / ".home/x").write_text("x")


def test_a_tree_comes_out_as_it_is_and_from_any_offset(tmp_path: Path) -> None:
    tree(tmp_path)
    end, data, header = get(tmp_path)
    assert (header["size"], end["size"], header["skipped_count"]) == (len(data), len(data), 2)
    assert end["sha256"] == hashlib.sha256(data).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(data)) as made:
        names = made.getnames()
        assert names == ["d", "d/big", "d/e", "d/e/tool", "d/in", "n" * 200]
        assert [made.getmember(name).mode for name in ("d/big", "d/e/tool")] == [0o644, 0o755]
    for offset in [0, 1, 511, 512, 1024, 100_000, len(data) - 1024, len(data) - 1, len(data)]:
        again, rest, _ = get(tmp_path, etag=header["etag"], offset=offset)
        assert rest == data[offset:]
        assert again["size"] == len(data) - offset
    assert get(tmp_path, etag=header["etag"], offset=len(data) + 1)[0]["kind"] == "out_of_range"
    assert put(tmp_path, data, path="copy")["file_count"] == 4
    again = files(tmp_path / "copy")
    assert again["d/e/tool"] == "#!"


@pytest.mark.parametrize("change", ["content", "new", "gone", "mode"])
def test_a_tree_that_changed_is_another(tmp_path: Path, change: str) -> None:
    tree(tmp_path)
    etag = get(tmp_path)[2]["etag"]
    tool = tmp_path / "d/e/tool"
    if change == "content":
        tool.write_text("!!")
    elif change == "new":
        (tmp_path / "new").mkdir()
    elif change == "gone":
        (tmp_path / "d/in").unlink()
    else:
        tool.chmod(0o640)
    assert get(tmp_path, etag=etag)[0]["kind"] == "tree_changed"


def test_a_file_that_changes_while_it_is_read_ends_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(bytes(200_000))
    etag = tree_reading._etag

    def change(entries: list[tree_reading.Entry]) -> str:
        (tmp_path / "a").write_bytes(bytes(100_000))
        return etag(entries)

    monkeypatch.setattr(tree_reading, "_etag", change)
    assert get(tmp_path)[0]["kind"] == "tree_changed"


def test_a_tree_of_too_many_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_reading, "MAXIMUM_MEMBERS", 3)
    tree(tmp_path)
    assert get(tmp_path)[0]["kind"] == "too_large"


def compare(root: Path, *rows: list[Any], path: str = "", ignored: tuple[str, ...] = ()) -> Any:
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    end, data = call(root, "compare", parts(lines), path=path, ignored_names=list(ignored))
    if end["type"] == "error":
        return end["kind"]
    return tuple(
        [path for header, rows in data if header["kind"] == kind for path in json.loads(rows)]
        for kind in ("different", "beyond")
    )


def row_of(name: str, content: bytes, *, executable: bool = False) -> list[Any]:
    return [name, len(content), hashlib.sha256(content).hexdigest(), executable]


def test_a_comparison_tells_what_differs_and_what_is_beyond(tmp_path: Path) -> None:
    tree(tmp_path)
    big = (tmp_path / "d/big").read_bytes()
    (tmp_path / "d/node_modules").mkdir()
    (tmp_path / "d/node_modules/x").touch()
    same = [row_of("d/big", big), row_of("n" * 200, b"long")]
    tool = row_of("d/e/tool", b"#!", executable=True)
    assert compare(tmp_path, *same, tool, ignored=("node_modules",)) == ([], [])
    assert compare(tmp_path, *same, tool) == ([], ["d/node_modules/x"])
    changed = [row_of("d/big", big[:-1] + b"?"), row_of("d/e/tool", b"#!"), row_of("d/in", b"#!"), row_of("new", b"")]
    different, beyond = compare(tmp_path, *changed, ignored=("node_modules",))
    assert (different, beyond) == (["d/big", "d/e/tool", "d/in", "new"], ["n" * 200])
    assert compare(tmp_path, row_of("tool", b"#!", executable=True), path="d/e") == ([], [])
    assert compare(tmp_path, row_of("a", b""), path="not/there") == (["a"], [])
    assert compare(tmp_path, path="d/big") == "not_a_directory"
    assert compare(tmp_path, row_of("../x", b"")) == "invalid_path"


def test_comparisons_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path)
    monkeypatch.setattr(comparing, "MAXIMUM_FILES", 2)
    assert compare(tmp_path, *(row_of(f"{number}", b"") for number in range(3))) == "too_large"
    assert compare(tmp_path) == "too_large"
    monkeypatch.setattr(comparing, "MAXIMUM_BYTES", 100)
    assert compare(tmp_path, row_of("x" * 200, b"")) == "too_large"


def test_many_long_names_are_compared(tmp_path: Path) -> None:
    rows = [row_of("x" * 200 + f"\u00e9{number}", b"") for number in range(3000)]
    different, beyond = compare(tmp_path, *rows)
    assert (different, beyond) == (sorted(row[0] for row in rows), [])


def test_what_finds_no_room_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(trees, "_unpack", full)
    assert put(tmp_path, archive(member("a", b"1")), transfer="t")["kind"] == "no_space"
    assert list((tmp_path / HELD).iterdir()) == []


def test_a_transfer_is_held_for_a_day(tmp_path: Path) -> None:
    held = tmp_path / HELD
    held.mkdir(parents=True)
    for name, hours in (("old", 25), ("young", 23)):
        (held / name).write_bytes(b"x")
        os.utime(held / name, (time.time() - hours * 3600,) * 2)
    put(tmp_path, b"x", transfer="new", sha256=BROKEN_OFF)
    assert {path.name for path in held.iterdir()} == {"new", "young"}


def test_a_file_that_grows_between_two_reads_ends_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(200_000))
    send = tree_reading._Sender.send

    def grow(sender: tree_reading._Sender, data: bytes) -> None:
        if len(data) == MAXIMUM_PAYLOAD:
            with (tmp_path / "a").open("ab") as file:
                file.write(b"more")
        send(sender, data)

    monkeypatch.setattr(tree_reading._Sender, "send", grow)
    assert get(tmp_path)[0]["kind"] == "tree_changed"


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_an_attack_on_what_is_held_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    take = transfers._take

    def change(answers: Any, descriptor: int, offset: int) -> int:
        came = take(answers, descriptor, offset)
        os.ftruncate(descriptor, size)
        return came

    monkeypatch.setattr(transfers, "_take", change)
    assert put(tmp_path, archive(member("a", b"1")), transfer="t")["kind"] == "io"
    assert files(tmp_path) == {}
    assert list((tmp_path / HELD).iterdir()) == []


def test_an_attack_by_a_file_that_grows_while_it_is_compared_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"1")
    read = os.read
    reads = iter(range(5))

    def grow(descriptor: int, size: int) -> bytes:
        next(reads)
        with (tmp_path / "a").open("ab") as file:
            file.write(b"2")
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", grow)
    assert not comparing._is_same(str(tmp_path / "a"), row_of("a", b"1"))
