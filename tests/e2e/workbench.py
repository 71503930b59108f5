"""Small programs in sandboxes of their own, over gRPC, and what the events of an exec told."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from qila.client import Client
from qila.client.client import open_channel
from qila.client.errors import translated
from qila.gateway.v1 import gateway_pb2 as pb
from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceStub

_SECONDS: Final = 300


@dataclass(frozen=True, kw_only=True)
class Told:
    """The events of one exec, from its first or from a position on."""

    events: tuple[pb.ExecEvent, ...]

    @property
    def ended(self) -> pb.ExecEnded:
        """How it ended."""
        return self.events[-1].ended

    @property
    def exec_id(self) -> str:
        """Of the exec, if the first event is among them."""
        return self.events[0].created.exec_id

    @property
    def phases(self) -> list[tuple[str, int]]:
        """Each phase with its run: ("INSTALL", 0)."""
        return [(pb.Phase.Name(item.phase).removeprefix("PHASE_"), item.run) for item in self._of("phase_started")]

    @property
    def plan(self) -> pb.PlanMade:
        """The first plan."""
        plan: pb.PlanMade = self._of("plan_made")[0]
        return plan

    @property
    def checked(self) -> pb.ImportsChecked:
        """The last check of imports, empty if there was nothing to tell."""
        checked: pb.ImportsChecked = [pb.ImportsChecked(), *self._of("imports_checked")][-1]
        return checked

    @property
    def notices(self) -> list[pb.Notice]:
        """All notices."""
        return self._of("notice")

    @property
    def failure(self) -> str:
        """All that is said about an install that failed, its reason first; empty if it did not."""
        failed = self.ended.install_failed
        if not self.ended.HasField("install_failed"):
            return ""
        reason = pb.InstallFailureReason.Name(failed.reason).removeprefix("INSTALL_FAILURE_REASON_").lower()
        return "\n".join([reason, failed.detail, *failed.hints])

    def output(self, run: int = 0, stream: pb.Stream.ValueType = pb.STREAM_STDOUT) -> str:
        """What one run printed."""
        found = [item for item in self._of("output") if item.phase == pb.PHASE_RUN]
        return b"".join(item.data for item in found if (item.run, item.stream) == (run, stream)).decode()

    def everything(self) -> str:
        """For the message of an assertion."""
        return "\n".join(str(event) for event in self.events)[-6000:]

    def _of(self, kind: str) -> list[Any]:
        return [getattr(event, kind) for event in self.events if event.WhichOneof("event") == kind]


class Workbench:
    """Makes sandboxes and runs programs in them; `close` removes them all."""

    def __init__(self, address: str) -> None:
        self.client = Client(address)
        self._channel = open_channel(address)
        self._stub = GatewayServiceStub(self._channel)
        self._made: list[str] = []

    def sandbox(self, files: Mapping[str, str | bytes], lock: pb.Lockfile | None = None, image: str = "") -> str:
        """A sandbox with these files, made from the lock if there is one."""
        made = self.client.create(lock=lock, image=image).id
        self._made.append(made)
        self.put(made, files)
        return made

    def put(self, sandbox: str, files: Mapping[str, str | bytes]) -> None:
        """Writes files of the workspace."""
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            self.client.put(sandbox, path, io.BytesIO(data))

    def run(self, sandbox: str, file: str, **options: Any) -> Told:
        """Runs a program; the options are fields of ExecRequest."""
        request = pb.ExecRequest(sandbox_id=sandbox, program=pb.Program(file=file), **options)
        return _told(self._stub.Exec(request, timeout=_SECONDS))

    def type(self, sandbox: str, script: str) -> str:
        """Runs a command and gives what it printed; its failure fails the test."""
        request = pb.ExecRequest(sandbox_id=sandbox, command=pb.Command(argv=["bash", "-euc", script]))
        told = _told(self._stub.Exec(request, timeout=_SECONDS))
        assert told.ended.WhichOneof("end") == "exited", told.everything()
        assert not told.ended.exited, told.everything()
        return told.output()

    def attach(self, sandbox: str, exec_id: str, after: int, offsets: pb.OutputOffsets) -> Told:
        """What comes after an event and these offsets."""
        request = pb.AttachExecRequest(sandbox_id=sandbox, exec_id=exec_id, after_sequence=after, **{"from": offsets})
        return _told(self._stub.AttachExec(request, timeout=_SECONDS))

    def close(self) -> None:
        """Removes the sandboxes."""
        for sandbox in self._made:
            self.client.remove_sandbox(sandbox)
        self._channel.close()
        self.client.close()


def _told(responses: Iterable[pb.ExecResponse | pb.AttachExecResponse]) -> Told:
    with translated():
        return Told(events=tuple(response.event for response in responses))
