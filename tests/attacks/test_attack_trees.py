"""Archives that lead an upload astray, and trees that lead a download astray."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from .boxes import Box, host_directory, run_python, unused_name
from .file_calls import Refused
from .frame import attack
from .test_attack_files import FOLLOWS, LOOKS_FIRST, Victim, link, prepare_swap, race

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

MAXIMUM_MEMBERS = 20_000
ATTACKED = b"attacked"


@pytest.fixture
def victim() -> Iterator[Victim]:
    made = Victim(host_directory(), unused_name())
    made.file.write_text(made.content)
    yield made
    shutil.rmtree(made.directory, ignore_errors=True)


def file(name: str, data: bytes = ATTACKED) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, data


def other(name: str, kind: bytes, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o666
    for field, value in fields.items():
        setattr(info, field, value)
    return info, b""


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as opened:
        for info, data in members:
            opened.addfile(info, io.BytesIO(data))
    return made.getvalue()


def unpack(box: Box, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    with suppress(Refused):
        box.files.unpack("", archive(*members))


def damage(victim: Victim) -> list[str]:
    evidence = [path.name for path in victim.directory.iterdir() if path != victim.file]
    return evidence if victim.file.read_text() == victim.content else [*evidence, "changed"]


@pytest.mark.parametrize(
    "form", ["../../../../../../../../..{}/secret", "{}/secret", "a/../../../../../../../../..{}/new"]
)
@attack(weakened=FOLLOWS)
def test_unpack_a_member_outside_of_the_workspace(box: Box, victim: Victim, form: str) -> list[str]:
    unpack(box, other("a", tarfile.DIRTYPE, mode=0o755), file(form.format(victim.directory)))
    return damage(victim)


@attack(weakened=FOLLOWS)
def test_unpack_a_link_and_write_through_it(box: Box, victim: Victim) -> list[str]:
    unpack(box, other("out", tarfile.SYMTYPE, linkname=str(victim.directory)), file("out/new"))
    return damage(victim)


@attack(weakened=FOLLOWS)
def test_unpack_through_a_link_that_is_there(box: Box, victim: Victim) -> list[str]:
    link(box, victim.directory, "there")
    unpack(box, file("there/new"), file("there/secret"))
    return damage(victim)


@attack(weakened=FOLLOWS)
def test_unpack_into_a_directory_that_is_a_link(box: Box, victim: Victim) -> list[str]:
    link(box, victim.directory, "top")
    with suppress(Refused):
        box.files.unpack("top", archive(file("new")))
    return damage(victim)


@attack(weakened=FOLLOWS)
def test_unpack_a_hard_link_to_a_file_that_programs_may_not_read(box: Box) -> bool:
    content = unused_name()
    run_python(
        box,
        "import pathlib, sys; p = pathlib.Path('/sandbox/.qila/home/mine'); p.write_text(sys.argv[1]); p.chmod(0o666)",
        content,
        user="install",
    )
    unpack(box, other("hard", tarfile.LNKTYPE, linkname=".qila/home/mine"))
    found = "import os, sys; print(os.path.lexists('/sandbox/hard') and os.stat('/sandbox/hard').st_nlink > 1)"
    return run_python(box, found) == ["True"]


IS_DEVICE = "import os, stat; print(os.path.lexists('/sandbox/d') and stat.S_ISCHR(os.lstat('/sandbox/d').st_mode))"


@attack(weakened=FOLLOWS)
def test_unpack_a_device(box: Box) -> bool:
    number = Path("/dev/null").stat().st_rdev
    unpack(box, other("d", tarfile.CHRTYPE, devmajor=os.major(number), devminor=os.minor(number)))
    return run_python(box, IS_DEVICE) == ["True"]


IS_FIFO = "import os, stat; print(os.path.lexists('/sandbox/p') and stat.S_ISFIFO(os.lstat('/sandbox/p').st_mode))"


@attack(weakened=FOLLOWS)
def test_unpack_a_fifo(box: Box) -> bool:
    unpack(box, other("p", tarfile.FIFOTYPE))
    return run_python(box, IS_FIFO) == ["True"]


@attack(weakened=FOLLOWS)
def test_unpack_a_file_with_the_bit_that_lends_its_owner(box: Box) -> bool:
    info, data = file("lends")
    info.mode = 0o6755
    unpack(box, (info, data))
    (mode,) = run_python(box, "import os; print(os.stat('/sandbox/lends').st_mode)")
    return bool(int(mode) & (stat.S_ISUID | stat.S_ISGID))


@attack(weakened=FOLLOWS)
def test_unpack_into_the_environments(box: Box) -> bool:
    run_python(box, "import os; os.makedirs('/sandbox/.qila/env', exist_ok=True)", user="install")
    unpack(box, file(".qila/env/attack"))
    return "attack" in run_python(box, "import os; print(*os.listdir('/sandbox/.qila/env'))", user="install")[0].split()


@attack(weakened=FOLLOWS)
def test_unpack_more_members_than_a_tree_may_have(box: Box) -> bool:
    unpack(box, *(file(f"many/{number}", b"") for number in range(MAXIMUM_MEMBERS + 1)))
    count = "import os; print(len(os.listdir('/sandbox/many')) if os.path.isdir('/sandbox/many') else 0)"
    return int(run_python(box, count)[0]) > MAXIMUM_MEMBERS


@attack(weakened=FOLLOWS)
def test_unpack_a_sparse_bomb(box: Box) -> bool:
    holes = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 33)}
    info = tarfile.TarInfo("bomb")
    info.pax_headers = holes
    unpack(box, (info, b""))
    size = "import os; print(os.path.lexists('/sandbox/bomb') and os.stat('/sandbox/bomb').st_size)"
    return run_python(box, size)[0] not in {"False", "0"}


@attack(weakened=LOOKS_FIRST)
def test_swap_a_directory_and_a_link_under_an_upload(box: Box, victim: Victim) -> bool:
    prepare_swap(box, victim.directory, "directory")
    data = archive(file("new"))

    def deed() -> bool:
        box.files.unpack("swap", data)
        return (victim.directory / "new").exists()

    return race(box, deed)


@attack(weakened=FOLLOWS)
def test_download_what_is_of_the_host_through_a_link(box: Box, victim: Victim) -> bool:
    run_python(box, "import os; os.makedirs('/sandbox/down', exist_ok=True)")
    link(box, victim.file, "down/file")
    link(box, victim.directory, "down/directory")
    try:
        return victim.content.encode() in box.files.pack("down")
    except Refused:
        return False


@attack(weakened=LOOKS_FIRST)
def test_swap_a_file_and_a_link_under_a_download(box: Box, victim: Victim) -> bool:
    prepare_swap(box, victim.directory, "directory")
    return race(box, lambda: victim.content.encode() in box.files.pack("swap"))


def test_the_services_outlive_a_million_members_and_a_name_of_a_megabyte(boxes: Any) -> None:
    box = boxes.shipped
    block = tarfile.TarInfo("same").tobuf()
    with pytest.raises(Refused, match="twice"):
        box.files.unpack("", block * 200_000)
    long = archive(file("x" * (1 << 20)))
    with pytest.raises(Refused, match="header of"):
        box.files.unpack("", long)
    box.files.unpack("", archive(file("after")))
    assert box.files.read("after") == ATTACKED
    assert Path(f"/proc/{box.stack.processes['executor'].pid}").exists()
