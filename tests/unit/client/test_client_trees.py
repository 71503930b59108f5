"""Archives of a sandbox that lies, unpacked on this machine."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from qila.client.trees import unpack

END = bytes(1024)


def member(name: str, kind: bytes = tarfile.REGTYPE, *, target: str = "", pax: dict[str, str] | None = None) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.pax_headers = pax or {}
    return info.tobuf(tarfile.PAX_FORMAT)


def link(name: str, target: str) -> bytes:
    return member(name, tarfile.SYMTYPE, target=target)


@pytest.mark.parametrize(
    "links",
    [
        # From d/x, where the first link leads, three levels up are out of the tree.
        [link("a/b/c", "../../d"), link("a/b/c/x", "../../../y")],
        [link("a/b/c/x", "../../../y"), link("a/b/c", "../../d")],
    ],
)
def test_an_attack_by_a_link_through_a_link_leads_nowhere(tmp_path: Path, links: list[bytes]) -> None:
    with pytest.raises(tarfile.TarError):
        unpack([member("d", tarfile.DIRTYPE), *links, END], tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "archive",
    [
        member("a", pax={"GNU.sparse.map": "x,y", "GNU.sparse.size": "1"}),
        member("a") + member("a"),
        member("a") + member("a/b"),
        member("/".join("x" * 65), tarfile.DIRTYPE),
        member("/".join("x" * 1500), tarfile.DIRTYPE),
        5000 * member("p", tarfile.XHDTYPE),
        20_001 * member("d", tarfile.DIRTYPE),
        member("a", tarfile.LNKTYPE, target="b"),
        member("a", tarfile.FIFOTYPE),
        member("../a"),
    ],
    ids=["sparse", "twice", "below", "deep", "deeper", "headers", "many", "hard", "fifo", "up"],
)
def test_an_attack_by_a_tree_that_is_none_is_refused(tmp_path: Path, archive: bytes) -> None:
    with pytest.raises(tarfile.TarError):
        unpack([archive, END], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_links_that_stay_in_the_tree_are_made(tmp_path: Path) -> None:
    unpack([link("a/b", "../c"), link("e", "a/b"), member("c/d"), END], tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b").resolve() == (tmp_path / "out" / "c").resolve()
    assert (tmp_path / "out" / "e" / "d").is_file()
