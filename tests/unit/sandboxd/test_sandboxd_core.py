from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from sandbox.sandboxd.qila_sandboxd import frames, relay
from sandbox.sandboxd.qila_sandboxd.environment import environment
from sandbox.sandboxd.qila_sandboxd.paths import CallError, checked
from sandbox.sandboxd.qila_sandboxd.spool import Spool
from sandbox.sandboxd.qila_sandboxd.supervisors import Order


def test_frames_survive_being_cut_anywhere() -> None:
    sent: list[frames.Frame] = [({"type": "a", "n": 1}, b"\0\xff"), ({"type": "b"}, b""), ({"type": "c"}, b"x" * 65536)]
    stream = b"".join(frames.encode(*frame) for frame in sent)
    decoder = frames.Decoder()
    received = []
    for start in range(0, len(stream), 7):
        decoder.feed(stream[start : start + 7])
        while (frame := decoder.next()) is not None:
            received.append(frame)
    assert received == sent


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff\0\0\0\0",
        b"\0\0\0\2\0\1\0\1",
        b"\0\0\0\2\0\0\0\0[]",
        b"\0\0\0\2\0\0\0\0{}",
        b"\0\0\0\1\0\0\0\0{",
        (100_000).to_bytes(4, "big") + b"\0\0\0\0" + b"[" * 100_000,
    ],
)
def test_bad_frames_are_refused(data: bytes) -> None:
    decoder = frames.Decoder()
    decoder.feed(data)
    with pytest.raises(frames.FrameError):
        decoder.next()


def test_a_frame_too_large_is_not_sent() -> None:
    with pytest.raises(frames.FrameError):
        frames.encode({"type": "x"}, bytes(frames.MAXIMUM_PAYLOAD + 1))


@pytest.mark.parametrize(
    "path", ["", "/a", "a//b", "a/", ".", "a/../b", "..", "a\0b", "a" * 256, "a/" * 2048 + "ab", "\udcff", None, 3]
)
def test_bad_paths(path: object) -> None:
    with pytest.raises(CallError) as caught:
        checked(path)
    assert caught.value.kind == "invalid_path"


@pytest.mark.parametrize("path", ["a", ".a", "a/...", "ä/" * 3 + "b", "a" * 255])
def test_good_paths(path: str) -> None:
    assert checked(path) == path


def test_spool_holds_until_acknowledged_and_sends_again() -> None:
    spool = Spool()
    spool.append(b"abcdef")
    assert spool.take(4) == (0, b"abcd")
    spool.acknowledge(2)
    spool.acknowledge(1)
    assert (spool.acknowledged, spool.end) == (2, 6)
    with pytest.raises(ValueError, match="acknowledged up to 5"):
        spool.acknowledge(5)
    spool.resume(3)
    assert spool.take(10) == (3, b"def")
    for offset in (2, 7):
        with pytest.raises(ValueError, match="cannot resume"):
            spool.resume(offset)


_TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1D38 0100007F:A1B2 01 0:0 0:0 0 0 0 0 77 1
   1: 0100007F:A1B2 0100007F:1D38 01 0:0 0:0 0 0 1001 0 78 1
   2: 0100007F:A1B3 0100007F:1D38 01 0:0 0:0 0 0 0 0 0 1
   3: 0100007F:A1B4 0100007F:0050 01 0:0 0:0 0 0 1001 0 79 1
   4: 0100007F:A1B6 0100007F:1D39 01 0:0 0:0 0 0 1000 0 80 1
"""


@pytest.mark.parametrize(
    ("port", "ours", "user"),
    [
        (0xA1B2, 7480, 1001),
        (0xA1B3, 7480, 65534),
        (0xA1B4, 7480, 65534),
        (0xA1B5, 7480, 65534),
        (0xA1B6, 7481, 1000),
        (0xA1B6, 7480, 65534),
    ],
)
def test_owner_of_a_connection(tmp_path: Path, port: int, ours: int, user: int) -> None:
    # `tr` and `tm->when` are one column in the kernel's rows.
    table = tmp_path / "tcp"
    table.write_text(_TABLE.replace(" 0:0 0:0 0 0 ", " 0:0 0:0 0 "))
    assert relay.owner(("127.0.0.1", port), ours, (str(tmp_path / "none"), str(table))) == user


@pytest.mark.parametrize("user", [1000, 1001])
def test_programs_are_told_of_the_hosts_authorities_only_where_there_are_any(tmp_path: Path, user: int) -> None:
    bundle = tmp_path / "ca.pem"
    names = {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"}
    assert names.isdisjoint(environment(user, {}, bundle))
    bundle.touch()
    assert {environment(user, {}, bundle)[name] for name in names} == {str(bundle)}
    assert environment(user, {"SSL_CERT_FILE": "/sandbox/own.pem"}, bundle)["SSL_CERT_FILE"] == "/sandbox/own.pem"


def test_channel_ends_quietly() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(frames.encode({"type": "x"}, b"1")[:5])
        assert frames.Channel(ours).receive() is None


def test_headers_are_plain_json() -> None:
    data = frames.encode({"type": "x", "name": "ä"})
    assert json.loads(data[8:]) == {"type": "x", "name": "ä"}


def test_a_programs_options_for_node_come_behind_qilas() -> None:
    hook = "--require=/usr/lib/qila/node-support/resolve.cjs"
    asked = {"NODE_OPTIONS": "--max-old-space-size=8"}
    assert environment(1000, asked)["NODE_OPTIONS"] == f"{hook} --max-old-space-size=8"
    assert environment(1000, {})["NODE_OPTIONS"] == hook
    assert environment(1001, asked)["NODE_OPTIONS"] == "--max-old-space-size=8"


def order(**changed: Any) -> Order:
    fields: dict[str, Any] = {
        "argv": ["a", ""],
        "env": {"=C": "1", "D": "ü"},
        "cwd": "/",
        "user": 1000,
        "background": True,
    }
    return Order(**fields | changed)


def test_an_order_is_packed_as_its_supervisor_reads_it() -> None:
    size, *numbers = memoryview(order().packed())[:20].cast("I")
    texts = order().packed()[20:]
    assert (size, numbers) == (len(texts), [1000, 1, 2, 2])
    assert texts.split(b"\0") == [b"/", b"a", b"", b"=C=1", "D=ü".encode(), b""]


@pytest.mark.parametrize(
    "changed",
    [
        {"argv": ["a\0b"]},
        {"cwd": "/\0"},
        {"env": {"A": "\0"}},
        {"env": {"": "x"}},
        {"env": {"A=B": "x"}},
        {"argv": ["\ud800"]},
    ],
)
def test_what_no_program_can_be_given_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"null byte|variable name|surrogates"):
        order(**changed).packed()
