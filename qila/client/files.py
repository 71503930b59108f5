"""The calls about the files of a workspace."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Final

from qila.client.downloads import download, download_tree
from qila.client.errors import translated
from qila.client.trees import CHUNK_BYTES, LocalFile, archive
from qila.client.uploads import Stream, attempt, upload
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceStub

# Below this an upload is repeated as quickly as it is taken up again.
LARGE_BYTES: Final = 8 << 20
MAX_DEPTH: Final = 64
_COMPARED_AT_ONCE: Final = 500


@dataclass(kw_only=True)
class TreeDifference:
    """Paths below a directory: of files that are missing or something else there, and that are there beyond."""

    different: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)


class FileCalls:
    """The part of the client that is about files. Paths are relative to the workspace; all raise QilaError."""

    _stub: GatewayServiceStub
    _call_seconds: float
    _reconnect_seconds: float

    def put(self, sandbox_id: str, path: str, source: IO[bytes], *, executable: bool = False) -> pb.WriteFileResponse:
        """Writes one file of the workspace from an open one; answers its size in bytes and SHA-256 in hex.

        A large one that can be read again goes on where it was when the connection is lost, for at most
        `reconnect_seconds` without progress.
        """

        def send(transfer: str, stream: Stream) -> pb.WriteFileResponse:
            header = pb.WriteFileHeader(
                sandbox_id=sandbox_id, path=path, executable=executable, transfer_id=transfer, offset=stream.offset
            )

            def parts() -> Iterator[pb.WriteFileRequest]:
                yield pb.WriteFileRequest(header=header)
                for chunk in stream:
                    yield pb.WriteFileRequest(chunk=chunk)
                yield pb.WriteFileRequest(end=pb.WriteFileEnd(sha256=stream.sha256))

            with translated():
                return self._stub.WriteFile(parts())

        start = _start_of_large(source)
        if start is None:
            return attempt(send, "", Stream(iter(lambda: source.read(CHUNK_BYTES), b""), 0))

        def chunks() -> Iterator[bytes]:
            source.seek(start)
            return iter(lambda: source.read(CHUNK_BYTES), b"")

        return upload(
            chunks,
            send,
            lambda transfer: self.transfer_size(sandbox_id, transfer),
            reconnect_seconds=self._reconnect_seconds,
        )

    def put_tree(self, sandbox_id: str, files: Sequence[LocalFile], path: str = "") -> pb.WriteTreeResponse:
        """Writes local files below a directory of the workspace, in one stream; each is replaced atomically.

        At most 20,000 files and 2 GiB. Nothing is written before all of it has come; a lost connection is taken up
        again where it broke, for at most `reconnect_seconds` without progress.
        """

        def send(transfer: str, stream: Stream) -> pb.WriteTreeResponse:
            header = pb.WriteTreeHeader(sandbox_id=sandbox_id, path=path, transfer_id=transfer, offset=stream.offset)

            def parts() -> Iterator[pb.WriteTreeRequest]:
                yield pb.WriteTreeRequest(header=header)
                for chunk in stream:
                    yield pb.WriteTreeRequest(chunk=chunk)
                yield pb.WriteTreeRequest(end=pb.WriteTreeEnd(sha256=stream.sha256))

            with translated():
                return self._stub.WriteTree(parts())

        return upload(
            lambda: archive(files),
            send,
            lambda transfer: self.transfer_size(sandbox_id, transfer),
            reconnect_seconds=self._reconnect_seconds,
        )

    def compare_tree(
        self, sandbox_id: str, files: Sequence[pb.TreeFile], path: str = "", *, ignored_names: Sequence[str] = ()
    ) -> TreeDifference:
        """Which of these files are missing below a directory or something else there, and which are there beyond them.

        At most 20,000 files. Directories of an ignored name are not looked into.
        """
        header = pb.CompareTreeHeader(sandbox_id=sandbox_id, path=path, ignored_names=ignored_names)

        def parts() -> Iterator[pb.CompareTreeRequest]:
            yield pb.CompareTreeRequest(header=header)
            for start in range(0, len(files), _COMPARED_AT_ONCE):
                batch = pb.CompareTreeFiles(files=files[start : start + _COMPARED_AT_ONCE])
                yield pb.CompareTreeRequest(files=batch)
            yield pb.CompareTreeRequest(end=pb.CompareTreeEnd())

        found = TreeDifference()
        with translated():
            for response in self._stub.CompareTree(parts()):
                found.different += response.different
                found.beyond += response.beyond
        return found

    def transfer_size(self, sandbox_id: str, transfer_id: str) -> int:
        """How many bytes the sandbox holds of an upload that broke off."""
        request = pb.GetTransferRequest(sandbox_id=sandbox_id, transfer_id=transfer_id)
        with translated():
            return self._stub.GetTransfer(request, timeout=self._call_seconds).size

    def get_tree(self, sandbox_id: str, path: str = "") -> Iterator[bytes]:
        """Chunks of a tar archive of a directory; `qila.client.trees.unpack` unpacks it with distrust.

        A lost connection is taken up as `get` does; FILE_TREE_CHANGED if the tree is another by then.
        """
        request = pb.ReadTreeRequest(sandbox_id=sandbox_id, path=path)
        return download_tree(self._stub, request, reconnect_seconds=self._reconnect_seconds)

    def get(self, sandbox_id: str, path: str, *, offset: int = 0, length: int = 0) -> Iterator[bytes]:
        """Chunks of one file of the workspace, from an offset, so many bytes or (0) to its end.

        A lost connection is taken up again where it broke, for at most `reconnect_seconds` without a byte, as long as
        the file is the same; if it is not, QilaError with the reason FILE_CHANGED. What came is checked by its SHA-256.
        """
        request = pb.ReadFileRequest(sandbox_id=sandbox_id, path=path, offset=offset, length=length)
        return download(self._stub, request, reconnect_seconds=self._reconnect_seconds)

    def ls(self, sandbox_id: str, path: str = "", *, depth: int = 1, patterns: Sequence[str] = ()) -> list[pb.FileInfo]:
        """What lies in a directory of the workspace, or below it down to a depth of at most 64; sorted by path.

        The empty path is the workspace itself. With patterns, only what one of them matches: "**/*.py".
        """
        request = pb.ListFilesRequest(sandbox_id=sandbox_id, path=path, depth=depth, patterns=patterns)
        with translated():
            return list(self._stub.ListFiles(request, timeout=self._call_seconds).files)

    def stat(self, sandbox_id: str, path: str = "") -> pb.FileInfo:
        """What a path is; a link is not followed."""
        request = pb.StatFileRequest(sandbox_id=sandbox_id, path=path)
        with translated():
            return self._stub.StatFile(request, timeout=self._call_seconds).file

    def mv(self, sandbox_id: str, source: str, target: str, *, replace: bool = False) -> None:
        """Gives a file or directory another path, atomically; with `replace` a file that is there gives way."""
        request = pb.MoveFileRequest(sandbox_id=sandbox_id, source=source, target=target, replace=replace)
        with translated():
            self._stub.MoveFile(request, timeout=self._call_seconds)

    def mkdir(self, sandbox_id: str, path: str) -> None:
        """Makes a directory and those above it; one that is there is fine."""
        request = pb.MakeDirectoryRequest(sandbox_id=sandbox_id, path=path)
        with translated():
            self._stub.MakeDirectory(request, timeout=self._call_seconds)

    def rm(self, sandbox_id: str, path: str) -> None:
        """Removes a file, or a directory with all it holds."""
        request = pb.RemoveFileRequest(sandbox_id=sandbox_id, path=path)
        with translated():
            self._stub.RemoveFile(request, timeout=self._call_seconds)


def _start_of_large(source: IO[bytes]) -> int | None:
    """Where a file that is worth a transfer begins; None of a small one, or one that cannot be read again."""
    if not source.seekable():
        return None
    start = source.tell()
    size = source.seek(0, os.SEEK_END) - start
    source.seek(start)
    return start if size >= LARGE_BYTES else None
