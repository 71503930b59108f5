"""Doors that fail open: bad files, empty policies, doors that die, connections and users that have no right now."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from qila.gateway.v1 import gateway_pb2 as pb
from services.executor.egress.policy import CLOSED, EgressPolicy

from .boxes import Boxes, Shipped, run_python
from .doors import DoorProcess, Front, Site
from .frame import Setting, attack
from .test_attack_registries import request
from .upstream import Upstream

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

DOUBT = "open when in doubt"
ONCE = "decided once"


@pytest.fixture(scope="module")
def site(sandbox_image: str) -> Iterator[Site]:
    with Site() as made:
        yield made


BAD_REGISTRIES = {
    "empty": "", "no TOML": "[pypi", "another host with a path": '[pypi]\nindex = "https://a.example/x"',
    "no list": 'redirects = "*"', "binary": "\0\1\2",
}  # fmt: skip  # one line of rows reads better than five
BAD_RULES = {
    "empty": "", "no TOML": "[npm", "unknown ecosystem": "[nmp]\ndeny = []", "unknown key": "[npm]\ndenny = ['demo']",
    "no list": "[npm]\ndeny = 'demo'", "bad rule": "[npm]\ndeny = ['demo==!']",
    "bad age": "[npm]\nminimum_age_days = -1",
}  # fmt: skip  # as above


@attack(weakened=DOUBT)
def test_start_the_doors_with_a_bad_file(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, DOUBT)
    site.shut(setting)
    weakness = DOUBT if setting is Setting.WEAKENED else ""
    good = site.directory / "bad-registries.default"
    good.write_text((site.directory / "registries.toml").read_text())
    # One of each kind starts within a test's time; what each kind refuses is the unit tests' matter.
    bad = [("bad-registries.toml", text, "registries") for text in (BAD_REGISTRIES["empty"], BAD_REGISTRIES["no TOML"])]
    bad += [("bad-rules.toml", text, "package_policy") for text in (BAD_RULES["empty"], BAD_RULES["unknown key"])]
    for name, text, setting_name in bad:
        file = site.directory / name
        file.write_text(text)
        doors = site.start_doors("bad", weakness, **{setting_name: file})
        if doors.is_up:
            doors.open(front.box.name, front.box.listener, EgressPolicy(registries=True))
            front.box.send([request("/npm/demo")])
        doors.close()
    return front.registry.targets


EMPTY_POLICIES: list[object] = [
    None, {}, [], "", "registries", True, {"registries": True},
    {"registries": "yes", "hosts": [], "install_only": False},
    {"registries": True, "hosts": None, "install_only": False},
    {"registries": True, "hosts": ["*"], "install_only": False},
    {"registries": 1, "hosts": [], "install_only": False},
    {"registries": True, "hosts": [], "install_only": False, "more": 1},
    {"registries": None, "hosts": [], "install_only": False}, {"registries": False, "hosts": [], "install_only": False},
]  # fmt: skip  # as above


@attack(weakened=DOUBT)
def test_get_out_under_an_empty_policy(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, DOUBT)
    assert isinstance(front.doors, DoorProcess)
    for policy in EMPTY_POLICIES:
        front.doors.open(front.box.name, front.box.listener, policy)
        front.box.send([request("/npm/demo")])
    return front.registry.targets


@attack(weakened=ONCE)
def test_go_on_with_an_open_connection_when_the_policy_closes(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, ONCE)
    assert isinstance(front.doors, DoorProcess)
    name = keep(front)
    front.doors.set_policy(front.box.name, CLOSED)
    return use(front, name)


# Asks on one connection, and again on it and on another one when it is told to.
KEEP = r"""
import os, pathlib, socket, sys, time
go = pathlib.Path('/tmp/go-mirror-' + str(os.getuid()))
go.unlink(missing_ok=True)
ask = b'GET /npm/%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'
connection = socket.create_connection(('127.0.0.1', 7480))
connection.settimeout(10)
connection.sendall(ask % b'before')
print(connection.recv(4096)[:15], flush=True)
while not go.exists():
    time.sleep(0.02)
for again in (connection, socket.create_connection(('127.0.0.1', 7480))):
    again.settimeout(10)
    try:
        again.sendall(ask % b'afterwards')
        print(again.recv(4096))
    except OSError as error:
        print(error)
"""


def keep(front: Front, user: str = "program") -> str:
    name = front.box.start(KEEP, user=user)
    assert "GET /before" in front.registry.targets, "the connection has been used"
    return name


def use(front: Front, name: str, user: str = "program") -> list[str]:
    front.box.run("import os, pathlib; pathlib.Path('/tmp/go-mirror-' + str(os.getuid())).touch()", user=user)
    front.box.sandboxd.finish(name)
    return [line for line in front.registry.targets if "afterwards" in line]


@attack(weakened=ONCE)
def test_go_on_as_a_daemon_of_an_install_that_has_ended(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, ONCE)
    assert isinstance(front.doors, DoorProcess)
    front.doors.set_install(front.box.name, is_open=True)
    name = keep(front, user="install")
    front.doors.set_install(front.box.name, is_open=False)
    return use(front, name, user="install")


@attack(weakened=ONCE)
def test_use_the_doors_as_the_installer_outside_of_an_install(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, ONCE)
    front.box.send([request("/npm/demo"), request("/pypi/simple/demo/")], user="install")
    return front.registry.targets


@attack(weakened=ONCE)
def test_use_doors_that_are_open_for_installs_alone(site: Site, setting: Setting) -> list[str]:
    policy = (
        EgressPolicy(registries=True, install_only=True)
        if setting is Setting.SHIPPED
        else EgressPolicy(registries=True)
    )
    front = site.front(setting, ONCE, policy=policy)
    assert isinstance(front.doors, DoorProcess)
    front.doors.set_install(front.box.name, is_open=True)
    front.box.send([request("/npm/demo"), request("/npm/demo", fields="X-Phase: INSTALL\r\n")])
    front.doors.set_install(front.box.name, is_open=False)
    return front.registry.targets


# Asks without a pause, so many times or until it is told to stop.
HAMMER = r"""
import pathlib, socket, sys, time
stop = pathlib.Path('/tmp/stop-hammer')
print('ready', flush=True)
for _ in range(int(sys.argv[1])):
    if stop.exists():
        break
    try:
        with socket.create_connection(('127.0.0.1', 7480)) as connection:
            connection.settimeout(2)
            connection.sendall(b'GET /npm/hammered HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n')
            print(connection.recv(4096), flush=True)
    except OSError:
        time.sleep(0.01)
"""


def set_mode(sandbox: Shipped, mode: pb.EgressMode.ValueType) -> None:
    policy = pb.EgressPolicy(mode=mode)
    sandbox.stack.gateway.SetEgressPolicy(pb.SetEgressPolicyRequest(sandbox_id=sandbox.id, policy=policy), timeout=60)


@attack(weakened="the policy is not one that closes")
def test_slip_through_while_the_doors_are_killed_and_started_again(
    boxes: Boxes, upstream: Upstream, setting: Setting
) -> list[str]:
    sandbox, stack = boxes.shipped, boxes.stack
    shipped = setting is Setting.SHIPPED
    set_mode(sandbox, pb.EGRESS_MODE_NONE if shipped else pb.EGRESS_MODE_REGISTRIES)
    upstream.seen.clear()
    hammer = sandbox.start("python3", "-c", HAMMER, "1000000")
    answers: list[str] = []
    for _ in range(2):
        pid = stack.doors_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        # Answers when there are doors again, which then have been told everything.
        set_mode(sandbox, pb.EGRESS_MODE_NONE if shipped else pb.EGRESS_MODE_REGISTRIES)
        assert stack.doors_pid() not in {None, pid}
        answers += run_python(sandbox, HAMMER, 5)
    run_python(sandbox, "open('/tmp/stop-hammer', 'w').close()")
    hammer.stop()
    run_python(sandbox, "import os; os.unlink('/tmp/stop-hammer')")
    set_mode(sandbox, pb.EGRESS_MODE_REGISTRIES)
    assert any("HTTP/1.1" in answer for answer in answers), "somebody has answered"
    let_in = [answer for answer in answers if "HTTP/1.1" in answer and "403 Forbidden" not in answer]
    return [line for line in upstream.seen if "hammered" in line] + let_in
