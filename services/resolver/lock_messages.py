"""The wire side of the calls about locks: their parts as they arrive, within the limits, and their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qila.resolver.v1 import resolver_pb2 as pb
from services.resolver.calls import DiffLocks, Inventory, RenderSbom
from services.resolver.local import IMAGE_TOOLCHAIN
from services.resolver.model import Lockfile, SbomFormat, SbomSubject
from services.rpc.errors import invalid_argument, resource_exhausted

if TYPE_CHECKING:
    from services.resolver.model import LockDiff, LockedPackage

MAX_TOTAL_BYTES = 64 << 20
# Below what a message of the resolver may have.
MAX_ANSWER_BYTES = 32 << 20
MAX_LOCKS = 16
MAX_NAME = 256
# The last second of the year 9999.
MAX_TIME = 253_402_300_799
SBOM_FORMATS = {
    pb.SBOM_FORMAT_CYCLONEDX_1_6: SbomFormat.CYCLONEDX_1_6,
    pb.SBOM_FORMAT_SPDX_2_3: SbomFormat.SPDX_2_3,
}


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


class SbomUpload:
    """The parts of a RenderSbom request as they arrive."""

    def __init__(self) -> None:
        self._header: pb.RenderSbomHeader | None = None
        self._starts: list[pb.SbomPart] = []
        self._chunks = Chunks()

    def add(self, request: pb.RenderSbomRequest) -> None:
        """Take one message; raises QilaError."""
        match request.WhichOneof("part"):
            case "header":
                self._header = request.header
            case "start":
                self._start(request.start)
            case "chunk":
                self._chunks.append(request.chunk)
            case _:
                raise invalid_argument("PART_MISSING", "a message of RenderSbom must have one part")

    def call(self) -> RenderSbom:
        """The whole request; raises QilaError if its header did not come or cannot be."""
        header = self._header
        if header is None:
            raise invalid_argument("HEADER_MISSING", "the first message must be the header")
        parts = list(zip(self._starts, self._chunks.contents(), strict=True))
        return RenderSbom(
            subject=_subject(header),
            locks=tuple(content for start, content in parts if start.WhichOneof("kind") == "lock"),
            unmanaged=tuple(
                Inventory(ecosystem=start.unmanaged_ecosystem, content=content)
                for start, content in parts
                if start.WhichOneof("kind") == "unmanaged_ecosystem"
            ),
            format=SBOM_FORMATS[header.format],
        )

    def _start(self, start: pb.SbomPart) -> None:
        if start.WhichOneof("kind") is None:
            raise invalid_argument("PART_UNKNOWN", "a part must be a lock or an inventory")
        self._starts.append(start)
        if len(self._starts) > MAX_LOCKS:
            raise resource_exhausted("LOCKS_TOO_MANY", f"more than {MAX_LOCKS} locks and inventories")
        self._chunks.start()


def _subject(header: pb.RenderSbomHeader) -> SbomSubject:
    if header.format not in SBOM_FORMATS:
        raise invalid_argument("FORMAT_UNKNOWN", "format must be CYCLONEDX_1_6 or SPDX_2_3")
    if not header.exec_id or not header.sandbox_id:
        raise invalid_argument("SUBJECT_MISSING", "sandbox_id and exec_id must be set")
    if not 0 <= header.time <= MAX_TIME:
        raise invalid_argument("TIME_INVALID", "time must be in seconds since 1970 and before the year 10000")
    return SbomSubject(
        sandbox_id=header.sandbox_id,
        exec_id=header.exec_id,
        time=header.time,
        program=header.program[:MAX_NAME],
        unmanaged_known=not header.unmanaged_unknown,
    )


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
    if message.ByteSize() > MAX_ANSWER_BYTES:
        reason = f"{len(diff.changes)} differences take more than the {MAX_ANSWER_BYTES} bytes of one answer"
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
