"""The wire side of the calls about locks: their parts as they arrive, within the limits, and their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qila.resolver.v1 import resolver_pb2 as pb
from services.resolver.calls import DiffLocks
from services.resolver.local import IMAGE_TOOLCHAIN
from services.resolver.model import Lockfile
from services.rpc.channel import MAX_MESSAGE_BYTES
from services.rpc.errors import invalid_argument, resource_exhausted

if TYPE_CHECKING:
    from services.resolver.model import LockDiff, LockedPackage

MAX_TOTAL_BYTES = 64 << 20
MAX_LOCKS = 16
MAX_NAME = 256


class Chunks:
    """Contents that arrive one after the other in chunks, within one limit for all."""

    def __init__(self) -> None:
        self._contents: list[bytearray] = []
        self._total = 0

    def start(self) -> None:
        """The next chunk belongs to another content."""
        self._contents.append(bytearray())

    def append(self, chunk: bytes) -> None:
        """Continue the content that was started last; raises QilaError."""
        if not self._contents:
            raise invalid_argument("START_MISSING", "a chunk must follow the start of what it belongs to")
        self._contents[-1] += chunk
        self._total += len(chunk)
        if self._total > MAX_TOTAL_BYTES:
            raise resource_exhausted("LOCKS_TOO_LARGE", f"all together are above {MAX_TOTAL_BYTES} bytes")

    def contents(self) -> list[bytes]:
        """All contents, in order."""
        return [bytes(content) for content in self._contents]


class DiffUpload:
    """The parts of a DiffLocks request as they arrive."""

    def __init__(self) -> None:
        self._starts: list[pb.DiffLocksStart] = []
        self._chunks = Chunks()

    def add(self, request: pb.DiffLocksRequest) -> None:
        """Take one message; raises QilaError."""
        match request.WhichOneof("part"):
            case "start":
                self._start(request.start)
            case "chunk":
                self._chunks.append(request.chunk)
            case _:
                raise invalid_argument("PART_MISSING", "a message of DiffLocks must have one part")

    def call(self) -> DiffLocks:
        """The whole request."""
        locks = list(zip(self._starts, self._chunks.contents(), strict=True))
        before, after = (
            tuple(Lockfile(name=start.name, content=content) for start, content in locks if start.side == side)
            for side in (pb.DIFF_SIDE_BEFORE, pb.DIFF_SIDE_AFTER)
        )
        return DiffLocks(before=before, after=after, toolchain=IMAGE_TOOLCHAIN)

    def _start(self, start: pb.DiffLocksStart) -> None:
        if start.side not in {pb.DIFF_SIDE_BEFORE, pb.DIFF_SIDE_AFTER}:
            raise invalid_argument("SIDE_UNKNOWN", "side must be BEFORE or AFTER")
        if len(start.name) > MAX_NAME:
            raise invalid_argument("NAME_TOO_LONG", f"the name of a lock must be at most {MAX_NAME} characters")
        self._starts.append(start)
        if sum(other.side == start.side for other in self._starts) > MAX_LOCKS:
            raise resource_exhausted("LOCKS_TOO_MANY", f"more than {MAX_LOCKS} locks on one side")
        self._chunks.start()


def diff_message(diff: LockDiff) -> pb.DiffLocksResponse:
    """A diff for the wire; raises QilaError if no message can hold it."""
    message = pb.DiffLocksResponse(
        changes=[
            pb.PackageChange(
                before=package_message(change.before) if change.before else None,
                after=package_message(change.after) if change.after else None,
            )
            for change in diff.changes
        ],
        unchanged_count=diff.unchanged_count,
    )
    if message.ByteSize() > MAX_MESSAGE_BYTES:
        reason = f"{len(diff.changes)} differences take more than the {MAX_MESSAGE_BYTES} bytes of one answer"
        raise resource_exhausted("DIFF_TOO_LARGE", f"{reason}; compare the lockfiles with `qila diff FILE FILE`")
    return message


def package_message(package: LockedPackage) -> pb.LockedPackage:
    """A package for the wire."""
    return pb.LockedPackage(
        purl=package.purl,
        name=package.name,
        version=package.version,
        hashes=package.hashes,
        license=package.license,
        license_text=package.license_text,
        direct=package.direct,
        required_by=package.required_by,
    )
