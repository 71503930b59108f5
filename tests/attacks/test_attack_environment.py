"""Rewriting what was installed: by the program, by a build script that stays behind, by what either left there."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from .boxes import Box, Boxes, Clone, Outcome, Shipped, host_pids, run_python, unused_name
from .frame import Setting, Weakness, attack
from .upstream import Upstream, sdist, wheel

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]

ENVIRONMENTS = "/sandbox/.qila/env/python"
GOOD_WHEEL = "qila_good-1.0-py3-none-any.whl"
PROGRAM = b"import qila_good\nprint(qila_good.VALUE)\n"

# A build backend that makes an honest wheel, after it has started something that shall outlive it.
BACKEND = r"""
import base64, os, pathlib, sys, time
def get_requires_for_build_wheel(config_settings=None):
    return []
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.chdir('/')
            os.closerange(0, 1024)
            stay_behind()
        os._exit(0)
    os.wait()
    name = f'{NAME}-1.0-py3-none-any.whl'
    pathlib.Path(wheel_directory, name).write_bytes(base64.b64decode(WHEEL))
    return name
"""
# Waits until all is done and told, and only then changes it.
REWRITE = r"""
def stay_behind():
    pathlib.Path('/proc/self/comm').write_text('qila-evil')
    while True:
        for marker in pathlib.Path('/sandbox/.qila/env/python').glob('*/.complete'):
            try:
                (marker.parent / 'lib/qila_good/__init__.py').write_text("VALUE = 'evil'\n")
            except OSError:
                pass
"""
# Opens everything to everybody, over and over, until it is killed.
OPEN_UP = r"""
def stay_behind():
    while True:
        os.chmod('/sandbox/.qila', 0o777)
        for top, directories, files in os.walk('/sandbox/.qila/env'):
            for name in [top, *(os.path.join(top, name) for name in files)]:
                try:
                    os.chmod(name, 0o777)
                except OSError:
                    pass
"""


def evil(name: str, payload: str) -> bytes:
    packed = base64.b64encode(wheel(name, {f"{name}/__init__.py": ""})).decode()
    return sdist(name, f"WHEEL = {packed!r}\nNAME = {name!r}\n{BACKEND}{payload}")


def good() -> bytes:
    return wheel("qila_good", {"qila_good/__init__.py": "VALUE = 'good'\n"})


@pytest.fixture
def sandbox(boxes: Boxes, upstream: Upstream) -> Iterator[Shipped]:
    upstream.publish("qila-good", GOOD_WHEEL, good())
    made = Shipped(boxes.stack)
    made.files.write("requirements.txt", b"qila-good\n")
    made.files.write("main.py", PROGRAM)
    yield made
    made.close()


def install_evil(sandbox: Shipped, upstream: Upstream, payload: str) -> Outcome:
    # Of its own each time: the mirror keeps what it has fetched.
    name = unused_name().replace("-", "_")
    upstream.publish(name.replace("_", "-"), f"{name}-1.0.tar.gz", evil(name, payload))
    sandbox.files.write("requirements.txt", f"qila-good\n{name}\n".encode())
    sandbox.files.write("main.py", f"import {name}\n".encode() + PROGRAM)
    outcome = sandbox.exec_program("main.py")
    assert any(f"{name}-1.0.tar.gz" in line for line in upstream.seen), "the build script has been fetched"
    return outcome


def install_carelessly(clone: Clone, payload: str) -> None:
    """What an install would be that kills nobody and looks at nothing afterwards."""
    links = clone.workspace / "links"
    links.mkdir()
    (links / GOOD_WHEEL).write_bytes(good())
    (links / "qila_evil-1.0.tar.gz").write_bytes(evil("qila_evil", payload))
    target = f"{ENVIRONMENTS}/careless"
    command = ("uv", "pip", "install", "--no-index", "--find-links", "/sandbox/links", "--python", "/usr/bin/python3")
    done = clone.run(*command, "--target", f"{target}/lib", "qila-good", "qila-evil", user="install")
    assert (done.kind, done.code) == ("exited", 0), done
    run_python(clone, f"open('{target}/.complete', 'w').close()", user="install")


VALUES = r"""
import pathlib, sys
for path in pathlib.Path('/sandbox/.qila/env/python').glob('*/lib/qila_good/__init__.py'):
    print(path.read_text().strip())
"""


def daemons(box: Box) -> list[str]:
    """Processes of the container by the name that the build script's daemon takes."""
    found = []
    for pid in host_pids(box.container):
        with suppress(OSError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            found += [f"process {pid}"] if name == "qila-evil" else []
    return found


@attack(weakened="an install that kills nobody afterwards")
def test_leave_a_daemon_behind_that_rewrites_the_environment(
    setting: Setting, boxes: Boxes, sandbox: Shipped, upstream: Upstream
) -> list[str]:
    box: Box = sandbox
    if setting is Setting.SHIPPED:
        outcome = install_evil(sandbox, upstream, REWRITE)
        assert (outcome.kind, outcome.out) == ("exited", b"good\n"), outcome
    else:
        box = boxes.clone(Weakness(name="an install"))
        assert isinstance(box, Clone)
        install_carelessly(box, REWRITE)
    deadline = time.monotonic() + (2 if setting is Setting.SHIPPED else 20)
    evidence: list[str] = []
    while not evidence and time.monotonic() < deadline:
        evidence = [line for line in run_python(box, VALUES) if "evil" in line]
    return evidence + daemons(box)


WRITABLE = r"""
import os
for top, directories, files in os.walk('/sandbox/.qila'):
    for name in [top, *(os.path.join(top, name) for name in files)]:
        if os.access(name, os.W_OK):
            print(name)
"""


@attack(weakened="an install that looks at nothing afterwards")
def test_leave_the_environment_open_to_the_program(
    setting: Setting, boxes: Boxes, sandbox: Shipped, upstream: Upstream
) -> list[str]:
    if setting is Setting.WEAKENED:
        clone = boxes.clone(Weakness(name="another install"))
        install_carelessly(clone, OPEN_UP)
        return run_python(clone, WRITABLE)
    outcome = install_evil(sandbox, upstream, OPEN_UP)
    # An environment that was refused is as good as one that was closed again.
    if outcome.kind != "exited":
        assert outcome.kind == "install_failed", outcome
        current = sandbox.run("sh", "-c", "ls /sandbox/.qila/env/python /sandbox/.qila/current").lines
        return [line for line in current if len(line) == 64]
    return run_python(sandbox, WRITABLE)


# Opens the module as soon as it may, and writes to it when the environment is complete.
GRAB = r"""
import os, pathlib, time
print('ready', flush=True)
held = {}
while True:
    for path in pathlib.Path('/sandbox/.qila/env/python').glob('*/lib/qila_good/__init__.py'):
        if path not in held:
            try:
                held[path] = os.open(path, os.O_WRONLY)
                open('/tmp/grabbed', 'w').close()
            except OSError:
                continue
        elif (path.parents[2] / '.complete').exists():
            os.pwrite(held[path], b"VALUE = 'evil'\n", 0)
            open('/tmp/written', 'w').close()
            raise SystemExit
"""


@attack(weakened="an install that looks at nothing afterwards")
def test_keep_a_module_open_from_before_the_install_was_done(
    setting: Setting, boxes: Boxes, sandbox: Shipped, upstream: Upstream
) -> list[str]:
    box: Box = sandbox if setting is Setting.SHIPPED else boxes.clone(Weakness(name="a third install"))
    grabbing = box.start("python3", "-c", GRAB)
    if isinstance(box, Clone):
        install_carelessly(box, OPEN_UP)
    else:
        assert install_evil(sandbox, upstream, OPEN_UP).out == b"good\n"
    waiting = "import os, time\nfor _ in range(50):\n os.path.exists('/tmp/written') or time.sleep(0.1)"
    run_python(box, f"{waiting}\nassert os.path.exists('/tmp/written'), 'the module was never opened'")
    values = run_python(box, VALUES)
    grabbing.stop()
    return [value for value in values if "evil" in value]


REWRITE_ALL = r"""
import os, pathlib, shutil
home = pathlib.Path('/sandbox/.qila')
environment = next((home / 'env/python').iterdir())
module = environment / 'lib/qila_good/__init__.py'
marker = environment / '.complete'
forged = home / 'env/python' / ('f' * 64)
deeds = {
    'rewrite a module': lambda: module.write_text("VALUE = 'evil'"),
    'replace a module': lambda: os.rename('/sandbox/evil.py', module),
    'add a module': lambda: (environment / 'lib/other.py').write_text(''),
    'add a path file': lambda: (environment / 'lib/evil.pth').write_text(''),
    'remove a module': lambda: module.unlink(),
    'move the environment': lambda: environment.rename(home / 'env/python/other'),
    'rewrite the marker': lambda: marker.write_text('{}'),
    'remove the marker': lambda: marker.unlink(),
    'rewrite the lock': lambda: (environment / 'qila.lock.json').write_text('{}'),
    'forge an environment': lambda: forged.mkdir(),
    'replace the current link': lambda: os.replace('/sandbox/link', home / 'current/python'),
    'remove the current link': lambda: (home / 'current/python').unlink(),
    'write to the stage': lambda: (home / 'stage/evil').write_text(''),
    'plant bytecode': lambda: (home / 'bytecode/evil').write_text(''),
    'write to the home of the installer': lambda: (home / 'home/.netrc').write_text(''),
    'move everything away': lambda: home.rename('/sandbox/old'),
    'remove everything': lambda: shutil.rmtree(home),
    'change modes': lambda: os.chmod(module, 0o666),
    'change owners': lambda: os.chown(module, 1000, 1000),
    'touch': lambda: os.utime(module),
    'set attributes': lambda: os.setxattr(module, 'user.evil', b'1'),
    'truncate': lambda: os.truncate(module, 0),
}
pathlib.Path('/sandbox/evil.py').write_text("VALUE = 'evil'")
if not os.path.islink('/sandbox/link'):
    os.symlink('/sandbox', '/sandbox/link')
for name, deed in deeds.items():
    try:
        deed()
        print(name)
    except OSError:
        continue
"""


@attack(weakened="environments that belong to the program")
def test_rewrite_the_environment_from_the_program(setting: Setting, boxes: Boxes, sandbox: Shipped) -> list[str]:
    if setting is Setting.SHIPPED:
        outcome = sandbox.exec_program("main.py")
        assert (outcome.kind, outcome.out) == ("exited", b"good\n"), outcome
        return run_python(sandbox, REWRITE_ALL)
    clone = boxes.clone(Weakness(name="the program's own environments"))
    module = "lib/qila_good"
    make = f"import os\nos.makedirs('/sandbox/e/env/python/a/{module}')\nos.makedirs('/sandbox/e/current')\n"
    run_python(clone, make + f"open('/sandbox/e/env/python/a/{module}/__init__.py', 'w').close()")
    (clone.workspace / ".qila").rename(clone.workspace / "old")
    (clone.workspace / "e").rename(clone.workspace / ".qila")
    return run_python(clone, REWRITE_ALL)


TRAP = "VALUE = 'evil'\n"


@attack(weakened="an installation that trusts the link for people")
def test_put_other_modules_where_the_link_for_people_is(setting: Setting, boxes: Boxes, sandbox: Shipped) -> list[str]:
    if setting is Setting.WEAKENED:
        clone = boxes.clone(Weakness(name="a trusted link"))
        run_python(clone, "import os; os.makedirs('/sandbox/deps/qila_good')")
        (clone.workspace / "deps/qila_good/__init__.py").write_text(TRAP)
        shown = clone.run("env", "PYTHONPATH=/sandbox/deps", "python3", "-c", PROGRAM.decode()).lines
        return [line for line in shown if line == "evil"]
    assert sandbox.exec_program("main.py").out == b"good\n"
    sandbox.files.remove("deps")
    sandbox.files.write("deps/qila_good/__init__.py", TRAP.encode())
    return [line for line in sandbox.exec_program("main.py").lines if line == "evil"]


# Runs whatever uses it as a stand-in, and says as whom.
PLANT = r"""
import os, pathlib, sys
marker = sys.argv[1]
spy = f"import os\nopen('/tmp/{marker}-' + str(os.getuid()), 'w').close()\n"
for place in ('/sandbox', '/sandbox/planted', '/sandbox/.local/lib/python3.13/site-packages'):
    os.makedirs(place, exist_ok=True)
    for name in ('sitecustomize.py', 'usercustomize.py', 'evil.pth'):
        pathlib.Path(place, name).write_text(spy.replace('\n', ';').rstrip(';') + '\n' if name.endswith('pth') else spy)
os.makedirs('/sandbox/.local/bin', exist_ok=True)
for name in ('uv', 'python3', 'python', 'sh', 'gcc', 'git', 'env'):
    path = pathlib.Path('/sandbox/.local/bin', name)
    path.write_text(f'#!/usr/bin/python3\n{spy}')
    path.chmod(0o755)
for name in ('uv.toml', '.config/uv/uv.toml', '.home/.config/uv/uv.toml'):
    path = pathlib.Path('/sandbox', name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('[[index]]\nurl = "http://127.0.0.1:9/simple/"\ndefault = true\n')
"""
VARIABLES = {
    "PYTHONPATH": "/sandbox/planted", "PATH": "/sandbox/.local/bin:/usr/bin", "HOME": "/sandbox/.home",
    "PYTHONSTARTUP": "/sandbox/planted/sitecustomize.py", "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple/",
    "UV_CONFIG_FILE": "/sandbox/uv.toml", "PIP_INDEX_URL": "http://127.0.0.1:9/simple/",
    "LD_PRELOAD": "/sandbox/planted/evil.so", "UV_PYTHON": "/sandbox/.local/bin/python3",
    "PYTHONUSERBASE": "/sandbox/.local",
}  # fmt: skip


@attack(weakened="an install in the environment of the program")
def test_have_the_installer_run_what_the_program_planted(setting: Setting, boxes: Boxes, sandbox: Shipped) -> list[str]:
    marker = unused_name()
    box: Box = sandbox if setting is Setting.SHIPPED else boxes.clone(Weakness(name="plants"))
    run_python(box, PLANT, marker)
    if setting is Setting.SHIPPED:
        outcome = sandbox.exec_program("main.py", **VARIABLES)
        assert outcome.kind == "exited", outcome
    else:
        box.run("env", "PATH=/sandbox/.local/bin:/usr/bin", "uv", "--version", user="install")
    return [
        line
        for line in box.run("/bin/sh", "-c", f"/bin/ls /tmp/{marker}-* 2>/dev/null; true").lines
        if line.endswith("1001")
    ]
