r"""The synchronous client of the gateway.

>>> made = client.create("python")
>>> written = client.put(made.id, "main.py", io.BytesIO(b"print('hello')"))
>>> result = client.exec(made.id, "main.py").communicate()
>>> result.stdout, result.exit_code
(b'hello\n', 0)
>>> client.remove_sandbox(made.id)
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import grpc
from grpc.experimental import ChannelOptions

from qila.client.egress import egress_records
from qila.client.errors import translated
from qila.client.files import FileCalls
from qila.client.handles import Exec
from qila.client.port_streams import PortStream
from qila.client.requests import ExecOptions, What, attach_request, exec_request, resize_request
from qila.client.results import TerminalSize
from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self, Unpack

DEFAULT_ADDRESS: Final = "127.0.0.1:7450"
# A lockfile may have 16 MiB.
MESSAGE_BYTES: Final = 40 << 20
CALL_SECONDS: Final = 120.0
CHANNEL_OPTIONS: Final = (
    # Probing would let a stalled stream fill memory.
    ("grpc.http2.bdp_probe", 0),
    # A proxy of the surrounding shell is not for loopback.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
)
_SYNC_OPTIONS: Final = (
    *CHANNEL_OPTIONS,
    # Whoever iterates over a stream reads it himself: a thread between the two is a third of what a short exec costs.
    (ChannelOptions.SingleThreadedUnaryStream, 1),
)


def open_channel(address: str) -> grpc.Channel:
    """A channel as the client uses it."""
    return grpc.insecure_channel(address, options=_SYNC_OPTIONS)


class Client(FileCalls):
    """Speaks to one gateway. A context manager; every method raises QilaError.

    `call_seconds` bounds each call that is not a stream. A lost exec stream is taken up again for `reconnect_seconds`.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        call_seconds: float = CALL_SECONDS,
        reconnect_seconds: float = 60,
    ) -> None:
        self._channel = open_channel(address)
        self._stub = GatewayServiceStub(self._channel)
        self._call_seconds = call_seconds
        self._reconnect_seconds = reconnect_seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; execs run on."""
        self._channel.close()

    def create(
        self,
        language: str = "",
        limits: pb.Limits | None = None,
        egress: pb.EgressPolicy | None = None,
        lock: pb.Lockfile | None = None,
        image: str = "",
    ) -> pb.Sandbox:
        """Makes a sandbox and starts it; without a policy it reaches the registries, as far as the operator allows.

        With a lock its programs get exactly the versions and hashes that it says; `image` names one of `images()`.
        """
        request = pb.CreateSandboxRequest(language=language, limits=limits, egress=egress, lock=lock, image=image)
        with translated():
            return self._stub.CreateSandbox(request, timeout=self._call_seconds).sandbox

    def sandbox(self, sandbox_id: str) -> pb.Sandbox:
        """One sandbox, with the egress policy in force."""
        request = pb.GetSandboxRequest(sandbox_id=sandbox_id)
        with translated():
            return self._stub.GetSandbox(request, timeout=self._call_seconds).sandbox

    def set_egress_policy(self, sandbox_id: str, policy: pb.EgressPolicy) -> pb.EgressPolicy:
        """Replaces the whole egress policy, also while execs run; answers the one in force."""
        request = pb.SetEgressPolicyRequest(sandbox_id=sandbox_id, policy=policy)
        with translated():
            return self._stub.SetEgressPolicy(request, timeout=self._call_seconds).policy

    def egress(
        self,
        sandbox_id: str,
        *,
        exec_id: str = "",
        verdict: pb.EgressVerdict.ValueType = pb.EGRESS_VERDICT_UNSPECIFIED,
        after_sequence: int = 0,
        follow: bool = False,
    ) -> Iterator[pb.EgressRecord]:
        """What the doors decided about a sandbox, oldest first; with `follow` until the sandbox is removed.

        When the connection is lost while it follows, it goes on behind the last record, for at most
        `reconnect_seconds` without one.
        """
        request = pb.ListEgressRequest(
            sandbox_id=sandbox_id, exec_id=exec_id, verdict=verdict, after_sequence=after_sequence, follow=follow
        )
        return egress_records(self._stub, request, reconnect_seconds=self._reconnect_seconds)

    def images(self) -> list[pb.Image]:
        """The images that sandboxes can be made from, the default first."""
        with translated():
            return list(self._stub.ListImages(pb.ListImagesRequest(), timeout=self._call_seconds).images)

    def sandboxes(self) -> list[pb.Sandbox]:
        """All sandboxes, newest first."""
        with translated():
            return list(self._stub.ListSandboxes(pb.ListSandboxesRequest(), timeout=self._call_seconds).sandboxes)

    def remove_sandbox(self, sandbox_id: str) -> None:
        """Removes a sandbox with all its files; an unknown one is fine."""
        with translated():
            self._stub.RemoveSandbox(pb.RemoveSandboxRequest(sandbox_id=sandbox_id), timeout=self._call_seconds)

    def exec(self, sandbox_id: str, what: What, **options: Unpack[ExecOptions]) -> Exec:
        """Runs a program (a Program, or its file's name) or a command (a Command, or its words).

        It starts when its events are first asked for, or with `start()`; the same id and request joins a running one.
        """
        return self._handle(exec_request(sandbox_id, what, options))

    def attach(
        self, sandbox_id: str, exec_id: str, *, after_sequence: int = 0, offsets: pb.OutputOffsets | None = None
    ) -> Exec:
        """An exec that is there, from a position; from its first event by default."""
        return self._handle(attach_request(sandbox_id, exec_id, after_sequence, offsets))

    def _handle(self, request: pb.ExecRequest | pb.AttachExecRequest) -> Exec:
        return Exec(self._stub, request, reconnect_seconds=self._reconnect_seconds, call_seconds=self._call_seconds)

    def list_execs(self, sandbox_id: str, *, running_only: bool = False) -> Iterator[pb.Exec]:
        """A sandbox's execs, newest first, asked for as they are needed."""
        request = pb.ListExecsRequest(sandbox_id=sandbox_id, running_only=running_only)
        while True:
            with translated():
                answer = self._stub.ListExecs(request, timeout=self._call_seconds)
            yield from answer.execs
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token

    def get_exec(self, sandbox_id: str, exec_id: str) -> pb.Exec:
        """What is known of an exec."""
        request = pb.GetExecRequest(sandbox_id=sandbox_id, exec_id=exec_id)
        with translated():
            return self._stub.GetExec(request, timeout=self._call_seconds).exec

    def cancel(self, sandbox_id: str, exec_id: str) -> None:
        """Kills all that an exec started; one that has ended is fine."""
        request = pb.CancelExecRequest(sandbox_id=sandbox_id, exec_id=exec_id)
        with translated():
            self._stub.CancelExec(request, timeout=self._call_seconds)

    def connect_port(self, sandbox_id: str, port: int) -> PortStream:
        """Connects to a program of the sandbox that listens on a TCP port; close it when done."""
        return PortStream(self._stub, sandbox_id, port)

    def preview(self, sandbox_id: str, port: int, seconds: float | None = None) -> pb.CreatePreviewResponse:
        """A URL at which browsers reach an HTTP server in the sandbox, for an hour unless `seconds` says otherwise."""
        request = pb.CreatePreviewRequest(sandbox_id=sandbox_id, port=port)
        if seconds is not None:
            request.ttl.FromTimedelta(timedelta(seconds=seconds))
        with translated():
            return self._stub.CreatePreview(request, timeout=self._call_seconds)

    def resize(self, sandbox_id: str, exec_id: str, size: TerminalSize) -> None:
        """Gives an exec's terminal another size."""
        with translated():
            self._stub.ResizeTerminal(resize_request(sandbox_id, exec_id, size), timeout=self._call_seconds)

    def signal(self, sandbox_id: str, exec_id: str, number: int) -> None:
        """Sends a signal, as Linux numbers them, to an exec's process group."""
        request = pb.SignalExecRequest(sandbox_id=sandbox_id, exec_id=exec_id, signal=number)
        with translated():
            self._stub.SignalExec(request, timeout=self._call_seconds)

    def lock(self, sandbox_id: str, exec_id: str = "") -> pb.GetLockResponse:
        """The lockfile of an exec's environment; of the newest that has one by default."""
        request = pb.GetLockRequest(sandbox_id=sandbox_id, exec_id=exec_id)
        with translated():
            return self._stub.GetLock(request, timeout=self._call_seconds)

    def sbom(
        self,
        sandbox_id: str,
        exec_id: str = "",
        sbom_format: pb.SbomFormat.ValueType = pb.SBOM_FORMAT_CYCLONEDX_1_6,
    ) -> bytes:
        """The SBOM of an exec as JSON; of the newest that ran by default."""
        request = pb.GetSbomRequest(sandbox_id=sandbox_id, exec_id=exec_id, format=sbom_format)
        with translated():
            return b"".join(answer.chunk for answer in self._stub.GetSbom(request, timeout=self._call_seconds))

    def diff(self, before: pb.LockReference, after: pb.LockReference) -> pb.DiffLocksResponse:
        """What differs between two execs or lockfiles: packages added, removed and changed."""
        request = pb.DiffLocksRequest(before=before, after=after)
        with translated():
            return self._stub.DiffLocks(request, timeout=self._call_seconds)
