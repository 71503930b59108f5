"""What can go wrong in the executor, as objects; the servicer gives each its status."""

from __future__ import annotations

from dataclasses import dataclass


class ExecutorError(Exception):
    """The root of the executor's own errors."""


@dataclass
class SandboxNotFoundError(ExecutorError):
    """No such sandbox in this installation."""

    sandbox_id: str

    def __str__(self) -> str:
        return f"no sandbox {self.sandbox_id!r} here; make one with CreateSandbox, or list them with ListSandboxes"


@dataclass
class ProcessNotFoundError(ExecutorError):
    """No process of that id was started in the sandbox."""

    sandbox_id: str
    process_id: str

    def __str__(self) -> str:
        return f"sandbox {self.sandbox_id} has no process {self.process_id!r}"


@dataclass
class ProcessExistsError(ExecutorError):
    """The process id stands for another spec."""

    process_id: str

    def __str__(self) -> str:
        return f"process {self.process_id!r} was started with another spec; choose another id"


@dataclass
class PortClosedError(ExecutorError):
    """No program of the sandbox listens on the port."""

    port: int
    error: str

    def __str__(self) -> str:
        hint = "start the server first; it must listen on 127.0.0.1, 0.0.0.0 or ::"
        return f"nothing in the sandbox takes connections on port {self.port} ({self.error}): {hint}"


@dataclass
class PortBrokenError(ExecutorError):
    """The program broke a connection off."""

    port: int
    error: str

    def __str__(self) -> str:
        return f"the program broke the connection to port {self.port} off ({self.error})"


@dataclass
class OffsetError(ExecutorError):
    """An offset lies beyond the end of an ended stream."""

    stream: str
    offset: int
    length: int

    def __str__(self) -> str:
        return f"offset {self.offset} of {self.stream} is beyond its end at {self.length}"


@dataclass
class ProcessEndedError(ExecutorError):
    """The process has ended."""

    process_id: str

    def __str__(self) -> str:
        return f"process {self.process_id!r} has ended; AttachProcess tells how"


@dataclass
class NoTerminalError(ExecutorError):
    """The process was started without a terminal."""

    process_id: str

    def __str__(self) -> str:
        return f"process {self.process_id!r} has no terminal; start it with one to give it a size"


@dataclass
class StdinNotOpenError(ExecutorError):
    """The process was started without an input."""

    process_id: str

    def __str__(self) -> str:
        return f"the input of process {self.process_id!r} is not open; start it with `stdin` or a `terminal`"


@dataclass
class StdinEndedError(ExecutorError):
    """Bytes behind the end of an input."""

    process_id: str
    length: int

    def __str__(self) -> str:
        return f"the input of process {self.process_id!r} has ended at {self.length}; nothing can follow"


@dataclass
class StdinGapError(ExecutorError):
    """Bytes of an input are missing before these."""

    offset: int
    expected: int

    def __str__(self) -> str:
        return f"input at {self.offset}, but what came before ends at {self.expected}; go on from there"


@dataclass
class StdinTakenOverError(ExecutorError):
    """Another writer has taken the input over."""

    process_id: str

    def __str__(self) -> str:
        return f"another stream has taken over the input of process {self.process_id!r}; there is one writer at a time"


@dataclass
class OldAgentError(ExecutorError):
    """The sandbox runs an image whose agent does not know what was asked for."""

    sandbox_id: str

    def __str__(self) -> str:
        return (
            f"sandbox {self.sandbox_id} was made from an image that has no input, terminals, merged output, idle "
            "timeout or watches; make a new sandbox"
        )


@dataclass
class LimitError(ExecutorError):
    """A bound of the installation is reached."""

    what: str
    limit: int

    def __str__(self) -> str:
        return f"{self.what}: the limit is {self.limit}; wait for one to end, or remove one"


@dataclass
class InvalidFieldError(ExecutorError):
    """A field of a request breaks its documented rule."""

    field: str
    rule: str

    def __str__(self) -> str:
        return f"{self.field}: {self.rule}"


@dataclass
class HostNotAllowedError(ExecutorError):
    """An egress policy names a host that the operator does not allow."""

    host: str

    def __str__(self) -> str:
        return (
            f"egress.hosts: {self.host} is not allowed on this installation; "
            "its operator must add it to QILA_CONNECT_HOSTS and start the executor again"
        )


@dataclass
class EngineError(ExecutorError):
    """The container engine does not answer, or refused."""

    operation: str
    detail: str

    def __str__(self) -> str:
        return f"the container engine failed to {self.operation}: {self.detail}"


@dataclass
class ImageMissingError(ExecutorError):
    """The sandbox image is not on this machine."""

    image: str

    def __str__(self) -> str:
        return f"the sandbox image {self.image} is not on this machine; build it with 'make image'"


@dataclass
class ImageUnknownError(ExecutorError):
    """A sandbox was asked for from an image that the operator has not named."""

    name: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        return f"image: {self.name[:80]!r} is no image of this installation; it has {', '.join(self.known)}"


@dataclass
class ImageNotAllowedError(ExecutorError):
    """A sandbox was made from an image that the operator no longer names."""

    sandbox_id: str
    name: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"the image {self.name!r} of sandbox {self.sandbox_id} is no longer allowed on this installation; its "
            "operator must put it back into QILA_IMAGES and start the executor again, or the program needs a new "
            f"sandbox from one of {', '.join(self.known)}"
        )


@dataclass
class WorkspaceError(ExecutorError):
    """A workspace's image file, or what it is attached with, cannot be had."""

    operation: str
    detail: str

    def __str__(self) -> str:
        return f"failed to {self.operation}: {self.detail}"


@dataclass
class WorkspaceMissingError(ExecutorError):
    """The workspace's image file was taken away behind Qila's back."""

    sandbox_id: str
    path: str

    def __str__(self) -> str:
        return (
            f"the workspace of sandbox {self.sandbox_id} is gone: {self.path} was removed from the host; "
            "put it back, or remove the sandbox"
        )


@dataclass
class QuotaUnavailableError(ExecutorError):
    """A bound of the workspace was asked for that this host cannot enforce."""

    def __str__(self) -> str:
        return (
            "limits.disk_bytes: this host cannot bound a workspace ('qila status' says why); "
            "leave the field out to do without"
        )


@dataclass
class DiskLowError(ExecutorError):
    """The host's disk is below its low-water mark. Bytes."""

    path: str
    free: int
    mark: int

    def __str__(self) -> str:
        return (
            f"the host's disk is low: {_mebibytes(self.free)} are free at {self.path}, new work needs "
            f"{_mebibytes(self.mark)}; remove sandboxes or files, or make room on the host"
        )


@dataclass
class AgentUnavailableError(ExecutorError):
    """The sandbox's agent did not connect in time, or the connection broke during a call."""

    sandbox_id: str
    detail: str

    def __str__(self) -> str:
        return f"the agent of sandbox {self.sandbox_id} is not reachable: {self.detail}; repeat the call"


@dataclass
class DoorsError(ExecutorError):
    """The doors process is not there; it is being started again."""

    detail: str

    def __str__(self) -> str:
        return f"the doors to the registries do not answer: {self.detail}; repeat the call"


@dataclass
class ProtocolError(ExecutorError):
    """The agent broke its protocol; what it says is untrusted, so the connection is closed."""

    detail: str

    def __str__(self) -> str:
        return f"the agent broke its protocol: {self.detail}"


@dataclass
class FileCallError(ExecutorError):
    """A file call failed inside the sandbox."""

    kind: str
    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path or 'the workspace'}: {self.detail}"


@dataclass
class ProbeError(ExecutorError):
    """The probe of the profile gave no answer that can be judged."""

    user: str
    detail: str

    def __str__(self) -> str:
        return f"the sandbox profile could not be asserted as user {self.user!r}: {self.detail}"


@dataclass
class ProfileError(ExecutorError):
    """A row of the profile does not hold inside a real container; `others` more do not either."""

    row: str
    expected: str
    found: str
    others: int

    def __str__(self) -> str:
        others = f" ({self.others} more rows do not hold; see the log)" if self.others else ""
        return f"the sandbox profile does not hold: {self.row}: expected {self.expected}, found {self.found}{others}"


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
