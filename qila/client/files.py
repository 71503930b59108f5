r"""The calls about the files of a workspace.

>>> made = client.create("python")
>>> main = LocalFile(source=program, path="src/main.py", size=program.stat().st_size, executable=False)
>>> client.put_files(made.id, [main])
>>> client.sync_tree(made.id, [main]).uploaded
[]
>>> [file.name for file in client.ls(made.id, depth=2, patterns=["**/*.py"])]
['src/main.py']
>>> unpack(client.get_tree(made.id, "src"), downloads / "src")
>>> (downloads / "src" / "main.py").read_text()
"print('hello')"
>>> client.remove_sandbox(made.id)
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from qila.client.downloads import download
from qila.client.errors import NotFoundError, translated
from qila.client.file_requests import (
    MAX_DEPTH,
    Digests,
    TreeDifference,
    TreeSync,
    below,
    chunks_of,
    compare_messages,
    differing,
    file_messages,
    in_shares,
    rereadable,
    tree_messages,
)
from qila.client.trees import LocalFile, archive
from qila.client.uploads import Stream, attempt, upload
from qila.client.watches import FileWatch, watch_request
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceStub


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
            with translated():
                return self._stub.WriteFile(file_messages(header, stream))

        chunks = rereadable(source)
        if chunks is None:
            return attempt(send, "", Stream(chunks_of(source), 0))
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
            with translated():
                return self._stub.WriteTree(tree_messages(header, stream))

        return upload(
            lambda: archive(files),
            send,
            lambda transfer: self.transfer_size(sandbox_id, transfer),
            reconnect_seconds=self._reconnect_seconds,
        )

    def put_files(self, sandbox_id: str, files: Sequence[LocalFile]) -> None:
        """Writes local files to the workspace, however many: the large ones each by itself, the rest as trees."""
        for share in in_shares(files):
            if isinstance(share, LocalFile):
                with share.source.open("rb") as opened:
                    self.put(sandbox_id, share.path, opened, executable=share.executable)
            else:
                self.put_tree(sandbox_id, share)

    def sync_tree(
        self,
        sandbox_id: str,
        files: Sequence[LocalFile],
        path: str = "",
        *,
        delete: bool | Callable[[str], bool] = False,
        ignored_names: Sequence[str] = (),
        digests: Digests | None = None,
    ) -> TreeSync:
        """Writes those of the files that are missing below a directory or something else there, by content.

        With `delete`, files that are there beyond them are removed: all, or those that it says yes to. Directories of
        an ignored name are not looked into. Who keeps `digests` for the next time does not read again what has not
        changed.
        """
        named = (digests or Digests()).named(files)
        found = self.compare_tree(sandbox_id, named, path, ignored_names=ignored_names)
        uploads = differing(files, found, path)
        self.put_files(sandbox_id, uploads)
        beyond = found.beyond_to_go(delete)
        removed = [name for name in beyond if self._removed(sandbox_id, below(path, name))]
        return TreeSync(uploaded=sorted(found.different), removed=removed, unchanged=len(files) - len(uploads))

    def _removed(self, sandbox_id: str, path: str) -> bool:
        try:
            self.rm(sandbox_id, path)
        except NotFoundError:
            # A program was quicker.
            return False
        return True

    def compare_tree(
        self, sandbox_id: str, files: Sequence[pb.TreeFile], path: str = "", *, ignored_names: Sequence[str] = ()
    ) -> TreeDifference:
        """Which of these files are missing below a directory or something else there, and which are there beyond them.

        At most 20,000 files. Directories of an ignored name are not looked into.
        """
        header = pb.CompareTreeHeader(sandbox_id=sandbox_id, path=path, ignored_names=ignored_names)
        found = TreeDifference()
        with translated():
            for response in self._stub.CompareTree(compare_messages(header, files)):
                found.add(response)
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
        return download(self._stub, request, reconnect_seconds=self._reconnect_seconds)

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

    def watch(
        self,
        sandbox_id: str,
        path: str = "",
        *,
        depth: int = MAX_DEPTH,
        patterns: Sequence[str] = (),
        ignored_names: Sequence[str] = (),
    ) -> FileWatch:
        """What changes below a directory, as it changes: to be iterated over, at best as a context manager.

        With patterns, only what one of them matches. Directories of an ignored name are told and not looked into.
        """
        request = watch_request(sandbox_id, path, depth, patterns, ignored_names)
        return FileWatch(self._stub, request, reconnect_seconds=self._reconnect_seconds)

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
