"""Leading the file calls astray: links, hard links, FIFOs, devices, names, and swaps between the look and the deed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from qila.executor.v1 import executor_pb2 as executor

from .boxes import Box, Clone, Shipped, host_directory, in_time, run_python, unused_name
from .file_calls import Refused
from .frame import Weakness, attack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

# What an executor would be that makes file calls on the volume as the host's root, without and with a look beforehand.
FOLLOWS = Weakness(name="file calls by the host that follow links", naive_files=True)
LOOKS_FIRST = Weakness(name="file calls by the host that look first")

HANG_SECONDS = 8
# Where it hangs by what it is.
SHORT_HANG_SECONDS = 2
RACE_SECONDS = 3
LONG_RACE_SECONDS = 60


@dataclass(frozen=True)
class Victim:
    """A directory of the host that only its root may enter, with a file in it that nobody may read or change."""

    directory: Path
    content: str

    @property
    def file(self) -> Path:
        return self.directory / "secret"


@pytest.fixture
def victim() -> Iterator[Victim]:
    made = Victim(host_directory(), unused_name())
    made.file.write_text(made.content)
    yield made
    shutil.rmtree(made.directory, ignore_errors=True)


INSTALLERS_SECRET = "/sandbox/.qila/home/secret"


@pytest.fixture
def secret(box: Box) -> str:
    """Content of a file that only the installer may read."""
    content = unused_name()
    script = "import os, pathlib, sys; p = pathlib.Path(sys.argv[1]); p.write_text(sys.argv[2]); p.chmod(0o600)"
    run_python(box, script, INSTALLERS_SECRET, content, user="install")
    return content


LINK = "import os, sys; os.path.lexists(sys.argv[2]) and os.unlink(sys.argv[2]); os.symlink(*sys.argv[1:])"


def link(box: Box, target: object, path: str) -> None:
    run_python(box, LINK, target, f"/sandbox/{path}")


def read(box: Box, path: str) -> bytes:
    try:
        return box.files.read(path)
    except Refused:
        return b""


@attack(weakened=FOLLOWS)
def test_read_a_file_of_the_host_through_a_link(box: Box, victim: Victim) -> bool:
    link(box, victim.file, "link")
    link(box, victim.directory, "directory")
    return victim.content.encode() in read(box, "link") + read(box, "directory/secret")


@attack(weakened=FOLLOWS)
def test_read_the_shadow_file_through_a_link(box: Box) -> bool:
    link(box, "/etc/shadow", "shadow")
    link(box, "/", "root")
    return b"root:" in read(box, "shadow") + read(box, "root/etc/shadow")


@attack(weakened=FOLLOWS)
def test_read_a_file_of_the_installer(box: Box, secret: str) -> bool:
    link(box, ".qila/home/secret", "installers")
    return secret.encode() in read(box, "installers") + read(box, ".qila/home/secret")


@attack(weakened=FOLLOWS)
def test_write_a_file_of_the_host_through_a_link(box: Box, victim: Victim) -> list[str]:
    link(box, victim.file, "link")
    link(box, victim.directory, "directory")
    for path in ("link", "directory/new", "directory/secret"):
        try:
            box.files.write(path, b"attacked")
        except Refused:
            continue
    evidence = [path.name for path in victim.directory.iterdir() if path != victim.file]
    return evidence if victim.file.read_text() == victim.content else [*evidence, "changed"]


@attack(weakened=FOLLOWS)
def test_write_into_the_environments(box: Box) -> list[str]:
    paths = (".qila/attack", ".qila/home/attack", ".qila/env/python/attack", ".qila/current/python")
    run_python(box, "import os; os.makedirs('/sandbox/.qila/env/python', exist_ok=True)", user="install")
    run_python(box, "import os; os.makedirs('/sandbox/.qila/current', exist_ok=True)", user="install")
    for path in paths:
        try:
            box.files.write(path, b"attacked")
        except Refused:
            continue
    found = "import os, sys; print(*[p for p in sys.argv[1:] if os.path.lexists(f'/sandbox/{p}')], sep='\\n')"
    return [line for line in run_python(box, found, *paths, user="install") if line]


@attack(weakened=FOLLOWS)
def test_remove_what_is_of_the_host_through_a_link(box: Box, victim: Victim) -> bool:
    link(box, victim.directory, "directory")
    for path in ("directory/secret", "directory"):
        try:
            box.files.remove(path)
        except Refused:
            continue
    return not victim.file.exists()


@attack(weakened=FOLLOWS)
def test_list_a_directory_of_the_host_through_a_link(box: Box, victim: Victim) -> list[str]:
    link(box, victim.directory, "directory")
    try:
        return box.files.list("directory")
    except Refused:
        return []


@pytest.mark.parametrize(
    "form", ["../../../../../../..{}", "{}", "a/../../../../../../../..{}", "./..//../../../../../..{}"]
)
@attack(weakened=FOLLOWS)
def test_name_a_file_outside_of_the_workspace(box: Box, victim: Victim, form: str) -> list[str]:
    (Path(victim.directory) / "a").mkdir()
    run_python(box, "import os; os.makedirs('/sandbox/a', exist_ok=True)")
    path = form.format(victim.file)
    evidence = ["read"] if victim.content.encode() in read(box, path) else []
    with suppress(Refused):
        box.files.write(path, b"attacked")
    with suppress(Refused):
        box.files.remove(path)
    return evidence if victim.file.exists() and victim.file.read_text() == victim.content else [*evidence, "changed"]


@attack(weakened=FOLLOWS)
def test_survey_what_is_of_the_host_through_a_link(box: Box, victim: Victim) -> list[str]:
    link(box, victim.directory, "directory")
    if isinstance(box, Shipped):
        request = executor.SurveyWorkspaceRequest(sandbox_id=box.id)
        batches = box.stack.executor.SurveyWorkspace(request, timeout=30)
        paths = [entry.path for batch in batches for entry in batch.entries]
    else:
        assert isinstance(box, Clone)
        walk = os.walk(box.workspace / "directory", followlinks=True)
        paths = [f"{top}/{name}" for top, _, names in walk for name in names]
    return [path for path in paths if path.endswith("directory/secret")]


HARD_LINK = r"""
import os, sys
for target in sys.argv[1:]:
    try:
        os.path.lexists('/sandbox/hard') and os.unlink('/sandbox/hard')
        os.link(target, '/sandbox/hard')
        print(target)
    except OSError:
        continue
"""


@attack(weakened=FOLLOWS)
def test_change_a_file_of_the_installer_through_a_hard_link(box: Box, secret: str) -> bool:
    if isinstance(box, Clone):
        # Where nothing forbids the link.
        os.link(box.workspace / ".qila/home/secret", box.workspace / "hard")
    else:
        run_python(box, HARD_LINK, INSTALLERS_SECRET, "/sandbox/.qila", "/etc/shadow", "/etc/passwd")
    try:
        box.files.write("hard", b"attacked")
    except Refused:
        return False
    return run_python(box, f"print(open('{INSTALLERS_SECRET}').read())", user="install") != [secret]


MAKE_FIFO = "import os; os.path.lexists('/sandbox/fifo') or os.mkfifo('/sandbox/fifo', 0o666)"


@attack(weakened=FOLLOWS)
def test_hang_a_read_at_a_fifo(box: Box) -> bool:
    run_python(box, MAKE_FIFO)
    ended = in_time(lambda: read(box, "fifo"), HANG_SECONDS if box.is_shipped else SHORT_HANG_SECONDS)
    if isinstance(box, Clone):
        # Lets the reader of the weakened set-up go.
        os.close(os.open(box.workspace / "fifo", os.O_WRONLY | os.O_NONBLOCK))
    return not ended


@attack(weakened=FOLLOWS)
def test_hang_a_write_at_a_fifo(box: Box) -> bool:
    run_python(box, MAKE_FIFO)

    def write() -> None:
        try:
            box.files.write("fifo", b"attacked")
        except Refused:
            return

    ended = in_time(write, HANG_SECONDS if box.is_shipped else SHORT_HANG_SECONDS)
    if isinstance(box, Clone):
        os.close(os.open(box.workspace / "fifo", os.O_RDONLY | os.O_NONBLOCK))
    return not ended


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/dev/full"])
@attack(weakened=FOLLOWS)
def test_read_a_device_through_a_link(box: Box, device: str) -> int:
    link(box, device, "device")
    contents: list[bytes] = []
    ended = in_time(lambda: contents.append(read(box, "device")), HANG_SECONDS)
    return not ended or bool(contents and contents[0])


# Swaps two names as fast as the kernel lets it: RENAME_EXCHANGE.
SWAP = r"""
import ctypes, sys
libc = ctypes.CDLL(None)
one, other = (name.encode() for name in sys.argv[1:])
print('ready', flush=True)
while True:
    libc.renameat2(-100, one, -100, other, 2)
"""


def race(box: Box, deed: Callable[[], bool]) -> bool:
    """Repeats a deed while a program swaps `/sandbox/swap` and `/sandbox/swapped`; whether it ever succeeded."""
    swapping = box.start("python3", "-c", SWAP, "/sandbox/swap", "/sandbox/swapped")
    deadline = time.monotonic() + (RACE_SECONDS if box.is_shipped else LONG_RACE_SECONDS)
    succeeded = False
    while not succeeded and time.monotonic() < deadline:
        try:
            succeeded = deed()
        except Refused:
            continue
    swapping.stop()
    return succeeded


PREPARE_SWAP = r"""
import os, shutil, sys
target, kind = sys.argv[1:]
os.chdir('/sandbox')
for name in ('swap', 'swapped'):
    if os.path.islink(name) or os.path.isfile(name):
        os.unlink(name)
    shutil.rmtree(name, ignore_errors=True)
if kind == 'directory':
    os.mkdir('swap')
open('swap/secret' if kind == 'directory' else 'swap', 'w').close()
os.symlink(target, 'swapped')
"""


def prepare_swap(box: Box, target: object, kind: str) -> None:
    """One name an honest file or directory, the other a link to the target."""
    run_python(box, PREPARE_SWAP, target, kind)


@attack(weakened=LOOKS_FIRST)
def test_swap_a_file_and_a_link_under_a_read(box: Box, victim: Victim) -> bool:
    prepare_swap(box, victim.file, "file")
    return race(box, lambda: victim.content.encode() in box.files.read("swap"))


@attack(weakened=LOOKS_FIRST)
def test_swap_a_file_and_a_link_to_a_file_of_the_installer_under_a_read(box: Box, secret: str) -> bool:
    prepare_swap(box, ".qila/home/secret", "file")
    return race(box, lambda: secret.encode() in box.files.read("swap"))


@attack(weakened=LOOKS_FIRST)
def test_swap_a_directory_and_a_link_under_a_write(box: Box, victim: Victim) -> bool:
    prepare_swap(box, victim.directory, "directory")

    def deed() -> bool:
        box.files.write("swap/new", b"attacked")
        return (victim.directory / "new").exists()

    return race(box, deed)


@attack(weakened=LOOKS_FIRST)
def test_swap_a_directory_and_a_link_under_a_removal(box: Box, victim: Victim) -> bool:
    prepare_swap(box, victim.directory, "directory")

    def deed() -> bool:
        box.files.remove("swap/secret")
        return not victim.file.exists()

    return race(box, lambda: deed() or not victim.file.exists())


@attack(weakened=LOOKS_FIRST)
def test_swap_a_directory_and_a_link_under_a_listing(box: Box, victim: Victim) -> bool:
    (victim.directory / "of the host").touch()
    prepare_swap(box, victim.directory, "directory")
    return race(box, lambda: "of the host" in box.files.list("swap"))
