"""Files and surveys as messages of protos/qila/executor/v1."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from qila.executor.v1 import executor_pb2 as pb
from services.executor import errors, files
from services.executor.trees import MAX_FILES, TreeFile, TreeHeader, check_file, check_transfer

MAX_POSITION = 1 << 63
_MAX_COUNT = (1 << 32) - 1

USERS = {pb.USER_UNSPECIFIED: "program", pb.USER_PROGRAM: "program", pb.USER_INSTALL: "install"}
FILE_KINDS = {
    "file": pb.FILE_KIND_FILE,
    "directory": pb.FILE_KIND_DIRECTORY,
    "link": pb.FILE_KIND_LINK,
    "other": pb.FILE_KIND_OTHER,
}
_FILE_ERRORS = {
    "not_found": pb.FILE_ERROR_KIND_NOT_FOUND,
    "not_a_file": pb.FILE_ERROR_KIND_NOT_A_FILE,
    "is_a_directory": pb.FILE_ERROR_KIND_NOT_A_FILE,
    "not_a_directory": pb.FILE_ERROR_KIND_NOT_FOUND,
    "too_large": pb.FILE_ERROR_KIND_TOO_LARGE,
    "permission_denied": pb.FILE_ERROR_KIND_PERMISSION_DENIED,
}


class UploadStream:
    """What lies between header and end, of WriteFile and WriteTree."""

    def __init__(
        self,
        header: pb.WriteFileHeader | pb.WriteTreeHeader,
        requests: AsyncIterator[pb.WriteFileRequest] | AsyncIterator[pb.WriteTreeRequest],
    ) -> None:
        self.transfer = check_transfer(header.transfer_id, empty_allowed=True)
        self.offset = check_position(header.offset, "offset")
        if self.offset and not self.transfer:
            raise errors.InvalidFieldError("offset", "needs a transfer_id, under which what lies before it is held")
        self.sha256 = ""
        self._requests = requests

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes. InvalidFieldError if something else comes, or if the end does not."""
        async for request in self._requests:
            part = request.WhichOneof("part")
            if part == "end":
                self.sha256 = request.end.sha256
                return
            if part != "chunk":
                raise errors.InvalidFieldError("chunk", "must come in every message between header and end")
            yield request.chunk
        # A caller that was cut off looks the same as one that stopped: only the end says that the file is whole.
        raise errors.InvalidFieldError("end", "must come last: the stream has broken off, and nothing was written")


async def unpack_files(requests: AsyncIterator[pb.CompareTreeRequest]) -> AsyncIterator[TreeFile]:
    """The files between header and end. InvalidFieldError."""
    count = 0
    async for request in requests:
        part = request.WhichOneof("part")
        if part == "end":
            return
        if part != "files":
            raise errors.InvalidFieldError("files", "must come in every message between header and end")
        count += len(request.files.files)
        if count > MAX_FILES:
            raise errors.LimitError(what="files to compare", limit=MAX_FILES)
        for row in request.files.files:
            size = check_position(row.size, "files.size")
            yield check_file(TreeFile(path=row.path, size=size, sha256=row.sha256, executable=row.executable))
    raise errors.InvalidFieldError("end", "must come last: the stream has broken off")


def check_position(value: int, field: str) -> int:
    """An offset or a length in bytes. InvalidFieldError."""
    if value >= MAX_POSITION:
        raise errors.InvalidFieldError(field, "must be below 2^63")
    return value


def pack_summary(
    summary: files.SurveySummary,
    toolchains: Mapping[str, str],
    *,
    package_policy: str,
    registry_urls: Mapping[str, str],
) -> pb.SurveySummary:
    """A survey's summary, with what the executor itself adds."""
    return pb.SurveySummary(
        digest=summary.digest,
        unchanged=summary.unchanged,
        file_count=summary.file_count,
        skipped_count=summary.skipped_count,
        environments=[
            pb.Environment(ecosystem=row.ecosystem, fingerprint=row.fingerprint, current=row.current)
            for row in summary.environments
        ],
        toolchains=toolchains,
        own_directories=summary.own_directories,
        package_policy=package_policy,
        registry_urls=registry_urls,
        unmanaged=[pb.UnmanagedDirectory(path=row.path, digest=row.digest) for row in summary.unmanaged],
    )


def pack_entry(row: files.SurveyEntry) -> pb.SurveyEntry:
    """A row of a survey."""
    return pb.SurveyEntry(path=row.path, size=row.size, mtime_ns=row.mtime_ns, ctime_ns=row.ctime_ns, inode=row.inode)


def pack_file_info(row: files.FileInfo) -> pb.FileInfo:
    """A row of a listing."""
    return pb.FileInfo(
        name=row.name,
        kind=FILE_KINDS.get(row.kind, pb.FILE_KIND_OTHER),
        size=row.size,
        mtime_ns=row.mtime_ns,
        executable=row.executable,
        link_target=row.link_target,
    )


def pack_file_part(part: files.FileChunk | files.FileEnd | files.FileFailure) -> pb.ReadFilesResponse:
    """A part of an answer to ReadFiles."""
    match part:
        case files.FileChunk():
            return pb.ReadFilesResponse(index=part.index, chunk=part.data)
        case files.FileEnd():
            return pb.ReadFilesResponse(index=part.index, end=pb.FileEnd(size=part.size, executable=part.executable))
        case files.FileFailure():
            kind = _FILE_ERRORS.get(part.kind, pb.FILE_ERROR_KIND_IO)
            return pb.ReadFilesResponse(index=part.index, error=pb.FileError(kind=kind, message=part.message))


def pack_part(part: files.PartHeader | bytes | files.PartEnd) -> pb.ReadFileResponse:
    """A part of an answer to ReadFile."""
    match part:
        case files.PartHeader():
            header = pb.ReadFileHeader(size=part.size, mtime_ns=part.mtime_ns, executable=part.executable)
            return pb.ReadFileResponse(header=header)
        case files.PartEnd():
            return pb.ReadFileResponse(end=pb.ReadFileEnd(size=part.size, sha256=part.sha256))
        case _:
            return pb.ReadFileResponse(chunk=part)


def pack_tree_part(part: TreeHeader | bytes | files.PartEnd) -> pb.ReadTreeResponse:
    """A part of an answer to ReadTree."""
    match part:
        case TreeHeader():
            header = pb.ReadTreeHeader(
                etag=part.etag,
                size=part.size,
                entry_count=min(part.entry_count, _MAX_COUNT),
                skipped_count=min(part.skipped_count, _MAX_COUNT),
            )
            return pb.ReadTreeResponse(header=header)
        case files.PartEnd():
            return pb.ReadTreeResponse(end=pb.ReadTreeEnd(size=part.size, sha256=part.sha256))
        case _:
            return pb.ReadTreeResponse(chunk=part)
