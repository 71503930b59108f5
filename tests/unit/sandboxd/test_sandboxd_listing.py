from __future__ import annotations

import time
from pathlib import Path

import pytest

from sandbox.sandboxd.qila_sandboxd import listing
from sandbox.sandboxd.qila_sandboxd.globs import Globs
from sandbox.sandboxd.qila_sandboxd.listing import walk
from sandbox.sandboxd.qila_sandboxd.paths import CallError


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.py", ["a.py", ".py"], ["a/b.py", "a.pyc", "A.PY"]),
        ("**/*.py", ["a.py", "a/b.py", "a/b/c.py"], ["a/b.txt"]),
        ("**", ["a", "a/b/c"], []),
        ("a/**", ["a", "a/b", "a/b/c"], ["b", "ab"]),
        ("a/**/z/**/*.c", ["a/z/x.c", "a/1/2/z/3/x.c", "a/z/z/x.c"], ["a/1/2/x.c", "z/x.c"]),
        ("a?[0-9]", ["ab1"], ["a1", "a/1", "abc"]),
        ("[!a]*", ["b"], ["a"]),
        ("a/*/c", ["a/b/c"], ["a/c", "a/b/b/c"]),
        ("**/**/x", ["x", "a/x"], ["a"]),
        ("a[", ["a["], ["a"]),
        ("*\n*", ["a\nb"], ["ab"]),
    ],
)
def test_globs(pattern: str, matching: list[str], others: list[str]) -> None:
    globs = Globs([pattern])
    assert [path for path in [*matching, *others] if globs.match(path)] == matching


@pytest.mark.parametrize("pattern", ["", "/a", "a//b", "../a", "a/.", "x" * 1025])
def test_bad_patterns(pattern: str) -> None:
    with pytest.raises(CallError) as caught:
        Globs([pattern])
    assert caught.value.kind == "invalid_path"


def test_globs_take_linear_time() -> None:
    name = "a" * 255
    begin = time.process_time()
    assert not Globs(["*a" * 120 + "b"]).match(name)
    assert not Globs(["/".join(["**", "a"] * 200 + ["b"])]).match("/".join("a" * 2000))
    assert time.process_time() - begin < 2


def test_walk_is_sorted_bounded_in_depth_and_follows_no_links(tmp_path: Path) -> None:
    (tmp_path / "b/c/d").mkdir(parents=True)
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep/inside").touch()
    (tmp_path / "b/keep").mkdir()
    (tmp_path / "b/keep/inside").touch()
    assert list(walk(str(tmp_path), depth=1)) == ["a", "b", "keep"]
    deep = ["a", "b", "b/c", "b/c/d", "b/keep", "b/keep/inside", "keep"]
    assert list(walk(str(tmp_path), depth=64, keep_out=frozenset({"keep"}))) == deep


def test_walk_ends_at_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAXIMUM_VISITS", 3)
    for name in ("a/1", "a/2", "b/1"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(CallError) as caught:
        list(walk(str(tmp_path), depth=64))
    assert caught.value.kind == "too_large"
