"""A watch of a real directory, with the kernel's own inotify."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from pathlib import Path

import pytest
from watch_calls import (  # type: ignore[import-not-found]  # pytest puts this directory on the path
    Change,
    Copy,
    Watch,
    in_thread,
    listed,
    renamed,
    watching,
    without_directories,
)

from sandbox.sandboxd.qila_sandboxd import inotify, watched_tree


def test_each_kind_of_change_is_told(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("1")
    (tmp_path / "dir").mkdir()
    with watching(tmp_path) as watch:
        (tmp_path / "new").write_text("four")
        [created] = watch.settle()
        assert (created.kind, created.path, created.type, created.size) == ("created", "new", "file", 4)
        (tmp_path / "old").write_text("22")
        [modified] = watch.settle()
        assert (modified.kind, modified.path, modified.size) == ("modified", "old", 2)
        assert modified.mtime_ns == (tmp_path / "old").stat().st_mtime_ns
        renamed(tmp_path / "old", tmp_path / "dir/moved")
        [moved] = watch.settle()
        assert (moved.kind, moved.before, moved.path, moved.size) == ("moved", "old", "dir/moved", 2)
        (tmp_path / "new").unlink()
        assert watch.told() == [("removed", "new")]
        (tmp_path / "dir/moved").chmod(0o755)
        assert [change.executable for change in watch.settle()] == [True]
        (tmp_path / "link").symlink_to("/etc/passwd")
        [link] = watch.settle()
        assert (link.kind, link.type) == ("created", "link")


def test_a_burst_is_one_change_and_what_came_and_went_is_none(tmp_path: Path) -> None:
    with watching(tmp_path) as watch:
        with (tmp_path / "log").open("w") as file:
            for _ in range(1000):
                file.write("line\n")
                file.flush()
        (tmp_path / "passing").touch()
        (tmp_path / "passing").unlink()
        changes = watch.settle()
        assert {change.path for change in changes} == {"log"}
        assert changes[0].kind == "created"
        assert len(changes) < 20
        assert changes[-1].size == 5000


def test_a_file_that_is_replaced_by_a_rename_is_modified(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("before")
    with watching(tmp_path) as watch:
        (tmp_path / ".qila-0123456789abcdef.tmp").write_text("afterwards")
        renamed(tmp_path / ".qila-0123456789abcdef.tmp", tmp_path / "config")
        [change] = watch.settle()
        assert (change.kind, change.path, change.size) == ("modified", "config", 10)


def test_two_writes_within_one_tick_of_the_clock_are_both_told(tmp_path: Path) -> None:
    path = tmp_path / "counter"
    path.write_text("1")
    with watching(tmp_path) as watch:
        before = path.stat()
        path.write_text("2")
        os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
        assert watch.told() == [("modified", "counter")]


def test_a_directory_that_moves_takes_all_along_each_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    with watching(tmp_path) as watch:
        renamed(tmp_path / "a", tmp_path / "z")
        changes = watch.settle()
        assert [(change.kind, change.before, change.path) for change in changes] == [
            ("moved", "a", "z"),
            ("moved", "a/b", "z/b"),
            ("moved", "a/b/file", "z/b/file"),
        ]
        (tmp_path / "z/b/file").write_text("still watched")
        assert watch.told() == [("modified", "z/b/file")]


def test_a_directory_that_comes_from_elsewhere_is_told_with_all_it_holds(tmp_path: Path) -> None:
    (tmp_path / "watched").mkdir()
    (tmp_path / "other/deep").mkdir(parents=True)
    (tmp_path / "other/deep/file").touch()
    with watching(tmp_path, "watched") as watch:
        renamed(tmp_path / "other", tmp_path / "watched/other")
        assert watch.told() == [("created", "other"), ("created", "other/deep"), ("created", "other/deep/file")]
        renamed(tmp_path / "watched/other", tmp_path / "gone")
        assert watch.told() == [("removed", "other/deep/file"), ("removed", "other/deep"), ("removed", "other")]
        (tmp_path / "gone/deep/unseen").touch()
        assert watch.told() == []


def test_two_that_change_places_are_told_each_on_its_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    copy = Copy(tmp_path)
    with watching(tmp_path) as watch:
        renamed(tmp_path / "a", tmp_path / "c")
        renamed(tmp_path / "b", tmp_path / "a")
        renamed(tmp_path / "c", tmp_path / "b")
        changes = watch.settle()
        copy.apply(changes)
        assert copy.entries == listed(tmp_path)
        assert sorted((change.kind, change.path) for change in changes) == [("modified", "a"), ("modified", "b")]


def test_a_new_file_with_the_number_of_one_that_went_has_not_been_moved(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with watching(tmp_path) as watch:
        renamed(tmp_path / "a", tmp_path / "b")
        (tmp_path / "b").unlink()
        (tmp_path / "b").touch()
        assert watch.told() == [("removed", "a"), ("created", "b")]


def test_one_that_takes_the_place_of_what_it_lay_in_is_moved(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").mkdir()
    (tmp_path / "a/b/c/file").touch()
    copy = Copy(tmp_path)
    with watching(tmp_path) as watch:
        renamed(tmp_path / "a/b/c", tmp_path / "aside")
        shutil.rmtree(tmp_path / "a")
        renamed(tmp_path / "aside", tmp_path / "a")
        copy.apply(watch.settle())
        assert without_directories(copy.entries) == without_directories(listed(tmp_path))
        (tmp_path / "a/later").touch()
        assert watch.told() == [("created", "a/later")]


def test_patterns_depth_and_ignored_names(tmp_path: Path) -> None:
    (tmp_path / "src/deep/deeper").mkdir(parents=True)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / ".qila").mkdir()
    with watching(tmp_path, patterns=["**/*.py"], depth=3, ignored_names=["node_modules"]) as watch:
        watch.directory = tmp_path / "signs"
        for name in ("main.py", "main.txt", "src/a.py", "src/deep/b.py", "src/deep/deeper/c.py", ".qila/d.py"):
            (tmp_path / name).touch()
        (tmp_path / "node_modules/e.py").touch()
        changes = until(watch, tmp_path / "end.py")
        assert {path for _, path in changes} == {"main.py", "src/a.py", "src/deep/b.py"}
        renamed(tmp_path / "main.py", tmp_path / "main.old")
        renamed(tmp_path / "main.txt", tmp_path / "text.py")
        renamed(tmp_path / "src/a.py", tmp_path / "src/b.py")
        assert set(until(watch, tmp_path / "end2.py")) == {
            ("removed", "main.py"),
            ("created", "text.py"),
            ("moved", "src/b.py"),
        }
        renamed(tmp_path / "src/deep/deeper", tmp_path / "near")
        assert set(until(watch, tmp_path / "end3.py")) == {("created", "near/c.py")}
        renamed(tmp_path / "src", tmp_path / "node_modules/src")
        assert set(until(watch, tmp_path / "end4.py")) == {("removed", "src/b.py"), ("removed", "src/deep/b.py")}


def until(watch: Watch, sign: Path) -> list[tuple[str, str]]:
    """What is told up to a sign that a pattern matches."""
    sign.touch()
    changes: list[tuple[str, str]] = []
    while not any(path == sign.name for _, path in changes):
        batch = watch.next()
        assert batch is not None, watch.end
        changes += [(change.kind, change.path) for change in batch]
    return [change for change in changes if change[1] != sign.name]


@pytest.mark.parametrize(
    ("path", "kind"),
    [("none", "not_found"), ("file", "not_a_directory"), ("link", "not_a_directory"), ("../x", "invalid_path")],
)
def test_what_cannot_be_watched_is_refused_before_anything_is_told(tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/etc")
    with watching(tmp_path, path) as watch:
        assert watch.kinds == []
        assert watch.end["kind"] == kind


@pytest.mark.parametrize("how", ["removed", "moved", "above"])
def test_a_path_that_goes_ends_the_watch(tmp_path: Path, how: str) -> None:
    (tmp_path / "above/watched").mkdir(parents=True)
    with watching(tmp_path, "above/watched") as watch:
        if how == "removed":
            (tmp_path / "above/watched").rmdir()
        elif how == "moved":
            renamed(tmp_path / "above/watched", tmp_path / "above/elsewhere")
        else:
            renamed(tmp_path / "above", tmp_path / "elsewhere")
        assert watch.rest() == {"type": "result", "end": "path_gone"}


def test_whatever_programs_do_at_once_the_copy_ends_as_the_tree(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"d{number}/sub").mkdir(parents=True)
        (tmp_path / f"d{number}/sub/file").touch()
    copy = Copy(tmp_path)

    def wild(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(1500):
            _step(choose, tmp_path)

    with watching(tmp_path) as watch:
        threads = [in_thread(lambda seed=seed: wild(seed)) for seed in range(3)]
        while any(thread.is_alive() for thread in threads):
            copy.apply(watch.settle())
        copy.apply(watch.settle())
        assert without_directories(copy.entries) == without_directories(listed(tmp_path))
        assert "overflow" not in watch.kinds


def _step(choose: random.Random, root: Path) -> None:
    """One of what programs do to trees; most of it fails."""
    places = ["", *(f"d{number}" for number in range(8)), *(f"d{number}/sub" for number in range(8))]
    names = ["sub", "file", "other", *(f"d{number}" for number in range(8))]
    one = root / choose.choice(places) / choose.choice(names)
    other = root / choose.choice(places) / choose.choice(names)
    try:
        match choose.randrange(6):
            case 0:
                one.write_text("x" * choose.randrange(9))
            case 1:
                one.mkdir()
            case 2:
                shutil.rmtree(one) if one.is_dir() else one.unlink()
            case 3:
                one.symlink_to(root)
            case _:
                renamed(one, other)
    except OSError:
        return


def test_events_that_were_lost_are_told_and_from_then_on_nothing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched_tree, "MAXIMUM_PENDING", 50)
    with watching(tmp_path) as watch:
        for number in range(200):
            (tmp_path / str(number)).touch()
        while watch.kinds[-1] != "overflow":
            watch.next()
        while watch.kinds[-1] == "overflow":
            # As often as it is told.
            copy = Copy(tmp_path)
            (tmp_path / "after").touch()
            copy.apply(watch.settle())
        assert copy.entries == listed(tmp_path)


def test_a_queue_of_the_kernel_that_ran_over_is_told(tmp_path: Path) -> None:
    kernel = inotify.Inotify()
    root = os.open(tmp_path, watched_tree.OPEN_FLAGS)
    tree = watched_tree.WatchedTree(kernel, root, depth=64, ignored=frozenset(), is_workspace=True)
    bound = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    one, other = (tmp_path / "one"), (tmp_path / "other")
    one.touch()
    for _ in range(bound):
        renamed(one, other)
        renamed(other, one)
    for event in kernel.read():
        tree.note(event)
    assert tree.is_behind
    tree.close()
    kernel.close()


def test_more_than_is_watched_ends_it_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_tree, "MAXIMUM_DIRECTORIES", 5)
    monkeypatch.setattr(watched_tree, "MAXIMUM_ENTRIES", 50)
    (tmp_path / "many").mkdir()
    with watching(tmp_path) as watch:
        for number in range(10):
            (tmp_path / f"d{number}").mkdir()
        assert watch.rest()["end"] == "too_large"
    with watching(tmp_path) as watch:
        assert watch.end["kind"] == "too_large"
        assert "ignore directories" in watch.end["message"]
    with watching(tmp_path, "many") as watch:
        for number in range(100):
            (tmp_path / f"many/f{number}").touch()
        assert watch.rest()["end"] == "too_large"


def test_whoever_does_not_listen_is_told_the_difference_in_the_end(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    with watching(tmp_path) as watch:
        watch.channel.connection.settimeout(0.5)
        frames = 0
        with contextlib.suppress(TimeoutError):
            while frames < 99:
                (tmp_path / f"f{frames}").touch()
                frame = watch.channel.receive()
                assert frame is not None
                copy.apply([Change(*row) for row in json.loads(frame[1])])
                frames += 1
        assert frames == 16
        for number in range(10):
            (tmp_path / f"f{number}").unlink()
            (tmp_path / "passing").touch()
            (tmp_path / "passing").unlink()
        watch.channel.connection.settimeout(None)
        watch.channel.send({"type": "credit", "bytes": 1})
        changes = watch.settle()
        copy.apply(changes)
        assert copy.entries == listed(tmp_path)
        assert "passing" not in {change.path for change in changes}


def test_what_was_replaced_since_the_kernel_told_of_it_has_not_been_moved(tmp_path: Path) -> None:
    for name in ("a", "other"):
        (tmp_path / name).touch()
    kernel = inotify.Inotify()
    root = os.open(tmp_path, watched_tree.OPEN_FLAGS)
    tree = watched_tree.WatchedTree(kernel, root, depth=64, ignored=frozenset(), is_workspace=True)
    renamed(tmp_path / "a", tmp_path / "b")
    for event in kernel.read():
        tree.note(event)
    renamed(tmp_path / "other", tmp_path / "b")
    changes = tree.look()
    assert changes.moved() == []
    assert [node.name for node in changes.removed] == ["a"]
    assert [node.name for node in changes.created] == ["b"]
    tree.close()
    kernel.close()
