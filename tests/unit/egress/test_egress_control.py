import array
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from services.executor.egress.control import MAX_MESSAGE_BYTES, ChannelClosed, ControlChannel, InvalidMessage
from services.executor.egress.records import EgressRecord, InvalidRecord, printable

GOOD: dict[str, Any] = {
    "sandbox": "sb_x", "phase": "RUN", "uid": 1000, "method": "GET", "host": "", "path": "/", "status": 200,
    "verdict": "allowed", "rule": "pypi index", "bytes": 1, "digest": "",
}  # fmt: skip


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


async def test_a_descriptor_arrives_and_is_not_inherited(tmp_path: Path) -> None:
    one, other = pair()
    with one, other, (tmp_path / "x").open("w+") as file:
        await ControlChannel(one).send({"type": "open", "sandbox": "é"}, file.fileno())
        message = await ControlChannel(other).receive()
        assert message is not None
        assert (message.type, message.fields) == ("open", {"sandbox": "é"})
        assert message.descriptor is not None
        assert not os.get_inheritable(message.descriptor)
        os.write(message.descriptor, b"same file")
        os.close(message.descriptor)
        assert (tmp_path / "x").read_text() == "same file"


@pytest.mark.parametrize("packet", [b"x", b"[]", b"{}", b'{"type":1}', b"[" * 60_000, b" " * (MAX_MESSAGE_BYTES + 1)])
async def test_bad_packets(packet: bytes) -> None:
    one, other = pair()
    with one, other:
        one.send(packet)
        with pytest.raises(InvalidMessage):
            await ControlChannel(other).receive()


async def test_several_descriptors_are_refused_and_closed() -> None:
    one, other = pair()
    with one, other:
        before = len(list(Path("/proc/self/fd").iterdir()))
        one.sendmsg([b'{"type":"open"}'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 0]))])
        with pytest.raises(InvalidMessage):
            await ControlChannel(other).receive()
        assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_the_end() -> None:
    one, other = pair()
    with other:
        one.close()
        assert await ControlChannel(other).receive() is None
        with pytest.raises(ChannelClosed):
            await ControlChannel(other).send({"type": "ready"})


def test_a_record_survives_the_way() -> None:
    record = EgressRecord(**GOOD)
    message = record.to_message()
    assert message.pop("type") == "egress"
    assert EgressRecord.from_message(message) == record


@pytest.mark.parametrize(
    "change",
    [{"uid": -1}, {"uid": True}, {"bytes": "1"}, {"phase": "X"}, {"verdict": []}, {"path": "a\nb"},
     {"path": "x" * 2049}, {"host": None}, {"method": "\udc80"}],
)  # fmt: skip
def test_records_that_are_not_believed(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRecord):
        EgressRecord.from_message(GOOD | change)


def test_what_is_not_printable_is_escaped() -> None:
    assert printable("a\r\n\x1b[2J\udcff\u2028é") == r"a\r\n\x1b[2J\udcff\u2028é"
    assert len(printable("\n" * 5000)) == 2048
