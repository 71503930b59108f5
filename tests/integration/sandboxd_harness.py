"""A sandbox container with the shipped image, and the executor's side of its control socket, spoken by hand."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from docker import APIClient
from docker.types import Mount
from docker.utils import kwargs_from_env

from sandbox.image.recipe import image_tag
from sandbox.sandboxd.qila_sandboxd.frames import Channel, Frame, Header
from services.executor.profile import Limits, Profile, load_profile
from services.executor.runtime.docker_container import container_settings
from services.executor.runtime.port import SandboxSpec

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILE = load_profile()
# Processors without bound: what is under test are orders, not how long a fork bomb's share of a processor lasts.
LIMITS = Limits(cpu_millis=64_000, memory_bytes=512 << 20, pids=512)
SANDBOXD = "/usr/lib/qila/sandboxd"


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def engine() -> Any:
    return APIClient(version="auto", timeout=60, **kwargs_from_env())


def image() -> str:
    """The image under test; sandboxd itself is always this checkout's, mounted over the image's own."""
    if chosen := os.environ.get("QILA_TEST_IMAGE"):
        return chosen
    tag = image_tag()
    assert docker("images", "-q", tag), f"{tag} is missing: run `make image`"
    return tag


class Sandbox:
    """Use as a context: makes the container and the volume, and removes both."""

    def __init__(self, *, profile: Profile = PROFILE, limits: Limits = LIMITS) -> None:
        self.profile = profile
        self.limits = limits
        self.name = f"qila-sandboxd-test-{secrets.token_hex(4)}"
        self.directory = Path(tempfile.mkdtemp(prefix="qs", dir="/tmp"))
        # As the executor's is: programs pass through it, and the sockets' own modes keep them from these.
        self.directory.chmod(0o711)
        self.channel: Channel | None = None
        self.kept: list[Frame] = []
        self._next = 0

    def __enter__(self) -> Self:
        self.listener = self._bind("control.sock")
        self.doors = self._bind("doors.sock")
        try:
            self._start()
            self.connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        """The executor's own container, with this checkout's sandboxd in it."""
        spec = SandboxSpec(sandbox_id=self.name, image=image(), limits=self.limits, socket_directory=self.directory)
        with engine() as api:
            settings = container_settings(api, self.profile, spec, name=self.name, labels={}, runtime=None)
            own = Mount(target=SANDBOXD, source=str(REPOSITORY / "sandbox/sandboxd"), type="bind", read_only=True)
            settings["host_config"]["Mounts"].append(own)
            api.create_container(**settings)
            api.start(self.name)

    def _bind(self, name: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.directory / name))
        (self.directory / name).chmod(0o600)
        listener.listen(64)
        listener.settimeout(60)
        return listener

    def close(self) -> None:
        for arguments in (["rm", "-f", "-v", self.name], ["volume", "rm", "-f", self.name]):
            subprocess.run(["docker", *arguments], capture_output=True, timeout=60, check=False)
        if self.channel is not None:
            self.disconnect()
        self.listener.close()
        self.doors.close()
        shutil.rmtree(self.directory)

    def connect(self, stored: dict[str, dict[str, int]] | None = None) -> Header:
        """Take sandboxd's call; resume what `stored` says, or everything from its first byte."""
        connection, _ = self.listener.accept()
        connection.settimeout(60)
        self.channel = Channel(connection)
        self.kept.clear()
        welcome = self.receive()[0]
        assert welcome["type"] == "welcome"
        self.send({"type": "resume", "processes": {} if stored is None else stored})
        return welcome

    def disconnect(self) -> None:
        assert self.channel is not None
        self.channel.connection.close()

    def send(self, header: Header, payload: bytes = b"") -> None:
        assert self.channel is not None
        self.channel.send(header, payload)

    def receive(self) -> Frame:
        assert self.channel is not None
        frame = self.channel.receive()
        assert frame is not None, "sandboxd hung up"
        return frame

    def start(self, *argv: str, **fields: Any) -> str:
        self._next += 1
        name = f"p{self._next}"
        order = {"env": {}, "cwd": "/sandbox", "user": "program", "timeout_ms": 0, "background": False} | fields
        self.send({"type": "start", "process": name, "argv": list(argv)} | order)
        return name

    def wait(self, kind: str, **fields: Any) -> Frame:
        """The next frame like this; others are kept for later waits."""
        wanted = {"type": kind, **fields}.items()
        for index, frame in enumerate(self.kept):
            if wanted <= {k: v for k, v in frame[0].items() if isinstance(v, str | int)}.items():
                return self.kept.pop(index)
        while True:
            frame = self.receive()
            if wanted <= {k: v for k, v in frame[0].items() if isinstance(v, str | int)}.items():
                return frame
            self.kept.append(frame)

    def finish(self, name: str) -> tuple[Header, bytes, bytes]:
        """The `ended` frame of a process and all that it wrote; acknowledges as it goes, then forgets."""
        header, streams = self.collect(name)
        return header, streams["stdout"], streams["stderr"]

    def collect(self, name: str, came: dict[str, bytes] | None = None) -> tuple[Header, dict[str, bytes]]:
        """As `finish`, by stream; `came` is what a test has taken already."""
        streams = {stream: bytearray((came or {}).get(stream, b"")) for stream in ("stdout", "stderr", "terminal")}
        while True:
            ready = [f for f in self.kept if f[0].get("process") == name]
            frame = ready[0] if ready else self.receive()
            if ready:
                self.kept.remove(frame)
            header, payload = frame
            if header.get("process") != name:
                self.kept.append(frame)
            elif header["type"] == "output":
                stream = streams[header["stream"]]
                assert header["offset"] == len(stream)
                stream += payload
                self.send({"type": "ack", "process": name, **{k: len(v) for k, v in streams.items()}})
            elif header["type"] == "ended":
                assert header["offsets"] == {k: len(v) for k, v in streams.items()}
                self.send({"type": "forget", "process": name})
                return header, {stream: bytes(data) for stream, data in streams.items()}

    def read_until(self, name: str, wanted: bytes, stream: str = "terminal", came: bytes = b"") -> bytes:
        """All of a stream, `came` included, up to the frame that completes what is wanted."""
        data = bytearray(came)
        while wanted not in data:
            header, payload = self.wait("output", process=name, stream=stream)
            assert header["offset"] == len(data)
            data += payload
        return bytes(data)

    def feed(self, name: str, data: bytes, offset: int = 0, *, end: bool = False) -> Header:
        """Gives a program input, and waits until sandboxd has all of it."""
        for start in range(0, len(data), 1 << 16) if data else [0]:
            part = data[start : start + (1 << 16)]
            last = end and start + len(part) == len(data)
            self.send({"type": "input", "process": name, "offset": offset + start, "end": last}, part)
        while True:
            header = self.wait("input", process=name)[0]
            if header["accepted"] >= offset + len(data) and header["ended"] >= end:
                return header

    def run(self, *argv: str, **fields: Any) -> tuple[Header, bytes, bytes]:
        return self.finish(self.start(*argv, **fields))

    def call(self, op: str, *chunks: bytes, **fields: Any) -> tuple[Header, list[Frame]]:
        """A whole call: its last frame and its data."""
        self._next += 1
        number = self._next
        sha256 = fields.pop("sha256", "")
        defaults = {"type": "call", "call": number, "op": op, "user": "program", "transfer": "", "offset": 0}
        self.send(defaults | fields)
        for chunk in chunks:
            self.send({"type": "chunk", "call": number}, chunk)
        if op.startswith(("write", "compare")):
            self.send({"type": "chunk", "call": number, "last": True, "sha256": sha256})
        data: list[Frame] = []
        while True:
            header, payload = self.receive()
            if header.get("call") != number:
                self.kept.append((header, payload))
            elif header["type"] == "data":
                data.append((header, payload))
                if payload:
                    self.send({"type": "credit", "call": number, "bytes": len(payload)})
            else:
                return header, data

    def serve_doors(self, answer: bytes) -> tuple[threading.Thread, list[bytes]]:
        """Take one connection at the doors, read it to its end, answer and close."""
        heard: list[bytes] = []

        def serve() -> None:
            connection, _ = self.doors.accept()
            with connection:
                while data := connection.recv(1 << 18):
                    heard.append(data)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        return thread, heard
