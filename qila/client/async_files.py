r"""The calls about the files of a workspace, to be awaited.

>>> async def up_and_down(client: AsyncClient) -> list[str]:
...     made = await client.create("python")
...     main = LocalFile(source=program, path="src/main.py", size=program.stat().st_size, executable=False)
...     await client.put_files(made.id, [main])
...     again = await client.sync_tree(made.id, [main])
...     await async_unpack(client.get_tree(made.id, "src"), downloads / "src")
...     await client.remove_sandbox(made.id)
...     return [*again.uploaded, *(path.name for path in downloads.iterdir())]
>>> awaited(up_and_down)
['src']
"""

from __future__ import annotations

import asyncio
from typing import IO, TYPE_CHECKING

from qila.client.async_watches import AsyncFileWatch
from qila.client.downloads import async_download
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
from qila.client.in_threads import InThreads
from qila.client.trees import LocalFile, archive
from qila.client.uploads import Stream, async_attempt, async_upload
from qila.client.watches import watch_request
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from qila.gateway.v1.gateway_pb2_grpc import GatewayServiceAsyncStub


class AsyncFileCalls:
    """The part of the asynchronous client that is about files. Local ones are read in threads."""

    _stub: GatewayServiceAsyncStub
    _call_seconds: float
    _reconnect_seconds: float

    async def put(
        self, sandbox_id: str, path: str, source: IO[bytes], *, executable: bool = False
    ) -> pb.WriteFileResponse:
        """Writes one file of the workspace from an open one; see `Client.put`."""

        async def send(transfer: str, stream: Stream) -> pb.WriteFileResponse:
            header = pb.WriteFileHeader(
                sandbox_id=sandbox_id, path=path, executable=executable, transfer_id=transfer, offset=stream.offset
            )
            async with InThreads(file_messages(header, stream)) as messages:
                with translated():
                    return await self._stub.WriteFile(messages)

        chunks = rereadable(source)
        if chunks is None:
            return await async_attempt(send, "", Stream(chunks_of(source), 0))
        return await async_upload(
            chunks,
            send,
            lambda transfer: self.transfer_size(sandbox_id, transfer),
            reconnect_seconds=self._reconnect_seconds,
        )

    async def put_tree(self, sandbox_id: str, files: Sequence[LocalFile], path: str = "") -> pb.WriteTreeResponse:
        """Writes local files below a directory of the workspace, in one stream; see `Client.put_tree`."""

        async def send(transfer: str, stream: Stream) -> pb.WriteTreeResponse:
            header = pb.WriteTreeHeader(sandbox_id=sandbox_id, path=path, transfer_id=transfer, offset=stream.offset)
            async with InThreads(tree_messages(header, stream)) as messages:
                with translated():
                    return await self._stub.WriteTree(messages)

        return await async_upload(
            lambda: archive(files),
            send,
            lambda transfer: self.transfer_size(sandbox_id, transfer),
            reconnect_seconds=self._reconnect_seconds,
        )

    async def put_files(self, sandbox_id: str, files: Sequence[LocalFile]) -> None:
        """Writes local files to the workspace, however many: the large ones each by itself, the rest as trees."""
        for share in in_shares(files):
            if isinstance(share, LocalFile):
                with await asyncio.to_thread(share.source.open, "rb") as opened:
                    await self.put(sandbox_id, share.path, opened, executable=share.executable)
            else:
                await self.put_tree(sandbox_id, share)

    async def sync_tree(
        self,
        sandbox_id: str,
        files: Sequence[LocalFile],
        path: str = "",
        *,
        delete: bool | Callable[[str], bool] = False,
        ignored_names: Sequence[str] = (),
        digests: Digests | None = None,
    ) -> TreeSync:
        """Writes those of the files that are missing or something else there, by content; see `Client.sync_tree`."""
        named = await asyncio.to_thread((digests or Digests()).named, files)
        found = await self.compare_tree(sandbox_id, named, path, ignored_names=ignored_names)
        uploads = differing(files, found, path)
        await self.put_files(sandbox_id, uploads)
        beyond = found.beyond_to_go(delete)
        removed = [name for name in beyond if await self._removed(sandbox_id, below(path, name))]
        return TreeSync(uploaded=sorted(found.different), removed=removed, unchanged=len(files) - len(uploads))

    async def _removed(self, sandbox_id: str, path: str) -> bool:
        try:
            await self.rm(sandbox_id, path)
        except NotFoundError:
            # A program was quicker.
            return False
        return True

    async def compare_tree(
        self, sandbox_id: str, files: Sequence[pb.TreeFile], path: str = "", *, ignored_names: Sequence[str] = ()
    ) -> TreeDifference:
        """Which of these files are missing below a directory or something else there; see `Client.compare_tree`."""
        header = pb.CompareTreeHeader(sandbox_id=sandbox_id, path=path, ignored_names=ignored_names)
        found = TreeDifference()
        with translated():
            async for response in self._stub.CompareTree(compare_messages(header, files)):
                found.add(response)
        return found

    async def transfer_size(self, sandbox_id: str, transfer_id: str) -> int:
        """How many bytes the sandbox holds of an upload that broke off."""
        request = pb.GetTransferRequest(sandbox_id=sandbox_id, transfer_id=transfer_id)
        with translated():
            return (await self._stub.GetTransfer(request, timeout=self._call_seconds)).size

    def get_tree(self, sandbox_id: str, path: str = "") -> AsyncIterator[bytes]:
        """Chunks of a tar archive of a directory; `async_unpack` unpacks it with distrust. See `Client.get_tree`."""
        request = pb.ReadTreeRequest(sandbox_id=sandbox_id, path=path)
        return async_download(self._stub, request, reconnect_seconds=self._reconnect_seconds)

    def get(self, sandbox_id: str, path: str, *, offset: int = 0, length: int = 0) -> AsyncIterator[bytes]:
        """Chunks of one file of the workspace, from an offset, so many bytes or (0) to its end; see `Client.get`."""
        request = pb.ReadFileRequest(sandbox_id=sandbox_id, path=path, offset=offset, length=length)
        return async_download(self._stub, request, reconnect_seconds=self._reconnect_seconds)

    async def ls(
        self, sandbox_id: str, path: str = "", *, depth: int = 1, patterns: Sequence[str] = ()
    ) -> list[pb.FileInfo]:
        """What lies in a directory of the workspace, or below it; see `Client.ls`."""
        request = pb.ListFilesRequest(sandbox_id=sandbox_id, path=path, depth=depth, patterns=patterns)
        with translated():
            return list((await self._stub.ListFiles(request, timeout=self._call_seconds)).files)

    def watch(
        self,
        sandbox_id: str,
        path: str = "",
        *,
        depth: int = MAX_DEPTH,
        patterns: Sequence[str] = (),
        ignored_names: Sequence[str] = (),
    ) -> AsyncFileWatch:
        """What changes below a directory, as it changes; see `Client.watch`."""
        request = watch_request(sandbox_id, path, depth, patterns, ignored_names)
        return AsyncFileWatch(self._stub, request, reconnect_seconds=self._reconnect_seconds)

    async def stat(self, sandbox_id: str, path: str = "") -> pb.FileInfo:
        """What a path is; a link is not followed."""
        request = pb.StatFileRequest(sandbox_id=sandbox_id, path=path)
        with translated():
            return (await self._stub.StatFile(request, timeout=self._call_seconds)).file

    async def mv(self, sandbox_id: str, source: str, target: str, *, replace: bool = False) -> None:
        """Gives a file or directory another path, atomically; with `replace` a file that is there gives way."""
        request = pb.MoveFileRequest(sandbox_id=sandbox_id, source=source, target=target, replace=replace)
        with translated():
            await self._stub.MoveFile(request, timeout=self._call_seconds)

    async def mkdir(self, sandbox_id: str, path: str) -> None:
        """Makes a directory and those above it; one that is there is fine."""
        request = pb.MakeDirectoryRequest(sandbox_id=sandbox_id, path=path)
        with translated():
            await self._stub.MakeDirectory(request, timeout=self._call_seconds)

    async def rm(self, sandbox_id: str, path: str) -> None:
        """Removes a file, or a directory with all it holds."""
        request = pb.RemoveFileRequest(sandbox_id=sandbox_id, path=path)
        with translated():
            await self._stub.RemoveFile(request, timeout=self._call_seconds)
