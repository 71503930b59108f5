# ruff: noqa: D102  # the port specifies the calls
"""The file calls of the executor in memory."""

from __future__ import annotations

import hashlib
import io
import tarfile
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from qila.executor.v1 import executor_pb2 as executor
from services.gateway.ports import unchecked
from services.rpc.errors import ErrorCode, QilaError, failed_precondition, invalid_argument, not_found, out_of_range

if TYPE_CHECKING:
    from services.gateway.executor_fake import FakeSandbox


class FakeFiles(ABC):
    """What `FakeExecutor` does with files: they are kept in memory, without rights and links."""

    async def write_file(
        self,
        header: executor.WriteFileHeader,
        chunks: AsyncIterator[bytes],
        *,
        sha256: Callable[[], str] = unchecked,
    ) -> executor.WriteFileResponse:
        sandbox = self._sandbox(header.sandbox_id)
        content = await _receive(sandbox, header, chunks, sha256)
        sandbox.files[header.path] = content
        sandbox.bell.ring()
        return executor.WriteFileResponse(size=len(content), sha256=hashlib.sha256(content).hexdigest())

    async def write_tree(
        self,
        header: executor.WriteTreeHeader,
        chunks: AsyncIterator[bytes],
        *,
        sha256: Callable[[], str] = unchecked,
    ) -> executor.WriteTreeResponse:
        sandbox = self._sandbox(header.sandbox_id)
        content = await _receive(sandbox, header, chunks, sha256)
        prefix = f"{header.path}/" if header.path else ""
        found: dict[str, bytes] = {}
        try:
            with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
                for member in archive:
                    if member.name.startswith("/") or ".." in member.name.split("/"):
                        raise invalid_argument("FILE_INVALID_PATH", f"{member.name}: leads out of the tree")
                    if member.isfile() and (file := archive.extractfile(member)) is not None:
                        found[prefix + member.name] = file.read()
        except tarfile.TarError as error:
            raise invalid_argument("FILE_INVALID_TREE", str(error)) from error
        sandbox.files |= found
        sandbox.bell.ring()
        return executor.WriteTreeResponse(
            size=len(content), sha256=hashlib.sha256(content).hexdigest(), file_count=len(found)
        )

    async def read_tree(self, request: executor.ReadTreeRequest) -> AsyncGenerator[executor.ReadTreeResponse, None]:
        sandbox = self._sandbox(request.sandbox_id)
        prefix = f"{request.path}/" if request.path else ""
        if request.path and request.path not in directories(sandbox):
            raise not_found("FILE_NOT_FOUND", f"{request.path}: no such directory")
        found = {path.removeprefix(prefix): sandbox.files[path] for path in sandbox.files if path.startswith(prefix)}
        etag = hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()
        if request.etag not in {"", etag}:
            raise QilaError(ErrorCode.ABORTED, "FILE_TREE_CHANGED", f"{request.path}: changed")
        content = _archive(found)
        if request.offset > len(content):
            raise out_of_range("FILE_OUT_OF_RANGE", f"offset {request.offset} is beyond the end")
        part = content[request.offset :]
        header = executor.ReadTreeHeader(etag=etag, size=len(content), entry_count=len(found))
        yield executor.ReadTreeResponse(header=header)
        for start in range(0, len(part), 1 << 16):
            yield executor.ReadTreeResponse(chunk=part[start : start + (1 << 16)])
        end = executor.ReadTreeEnd(size=len(part), sha256=hashlib.sha256(part).hexdigest())
        yield executor.ReadTreeResponse(end=end)

    async def compare_tree(
        self, header: executor.CompareTreeHeader, files: AsyncIterator[Sequence[executor.TreeFile]]
    ) -> AsyncGenerator[executor.CompareTreeResponse, None]:
        sandbox = self._sandbox(header.sandbox_id)
        prefix = f"{header.path}/" if header.path else ""
        there = {
            path.removeprefix(prefix): hashlib.sha256(content).hexdigest()
            for path, content in sandbox.files.items()
            if path.startswith(prefix) and not set(path.split("/")[:-1]) & set(header.ignored_names)
        }
        wanted = {file.path: file.sha256 async for batch in files for file in batch}
        different = sorted(path for path, sha256 in wanted.items() if there.get(path) != sha256)
        yield executor.CompareTreeResponse(different=different, beyond=sorted(set(there) - set(wanted)))

    async def transfer_size(self, sandbox_id: str, transfer_id: str) -> int:
        return len(self._sandbox(sandbox_id).transfers.get(transfer_id, b""))

    async def read_files(self, request: executor.ReadFilesRequest) -> AsyncGenerator[executor.ReadFilesResponse, None]:
        sandbox = self._sandbox(request.sandbox_id)
        for index, path in enumerate(request.paths):
            if path not in sandbox.files:
                kind = executor.FILE_ERROR_KIND_NOT_FOUND
                yield executor.ReadFilesResponse(
                    index=index, error=executor.FileError(kind=kind, message="no such file")
                )
                continue
            content = sandbox.files[path]
            if request.max_file_bytes and len(content) > request.max_file_bytes:
                kind = executor.FILE_ERROR_KIND_TOO_LARGE
                yield executor.ReadFilesResponse(index=index, error=executor.FileError(kind=kind, message="too large"))
                continue
            if content:
                yield executor.ReadFilesResponse(index=index, chunk=content)
            yield executor.ReadFilesResponse(index=index, end=executor.FileEnd(size=len(content)))

    async def read_file(self, request: executor.ReadFileRequest) -> AsyncGenerator[executor.ReadFileResponse, None]:
        content = self._content(request.sandbox_id, request.path)
        if request.offset > len(content):
            raise out_of_range("FILE_OUT_OF_RANGE", f"offset {request.offset} is beyond the end")
        part = content[request.offset :]
        part = part[: request.length] if request.length else part
        yield executor.ReadFileResponse(header=executor.ReadFileHeader(size=len(content)))
        if part:
            yield executor.ReadFileResponse(chunk=part)
        end = executor.ReadFileEnd(size=len(part), sha256=hashlib.sha256(part).hexdigest())
        yield executor.ReadFileResponse(end=end)

    async def list_files(self, request: executor.ListFilesRequest) -> Sequence[executor.FileInfo]:
        sandbox = self._sandbox(request.sandbox_id)
        prefix = f"{request.path}/" if request.path else ""
        if request.path and request.path not in directories(sandbox):
            raise not_found("FILE_NOT_FOUND", f"{request.path}: no such directory")
        paths = [path for path in [*sandbox.files, *directories(sandbox)] if path.startswith(prefix)]
        names = sorted(path.removeprefix(prefix) for path in paths)
        # Roughly: here a star may match across names.
        patterns = [pattern.replace("**/", "*") for pattern in request.patterns] or ["*"]
        depth = request.depth or 1
        found = [
            name
            for name in names
            if name.count("/") < depth and any(fnmatchcase(name, pattern) for pattern in patterns)
        ]
        return [_info(sandbox, prefix + name, name) for name in found]

    async def stat_file(self, sandbox_id: str, path: str) -> executor.FileInfo:
        sandbox = self._sandbox(sandbox_id)
        if path not in sandbox.files and path not in directories(sandbox):
            raise not_found("FILE_NOT_FOUND", f"{path}: no such file")
        return _info(sandbox, path, path)

    async def move_file(self, request: executor.MoveFileRequest) -> None:
        sandbox = self._sandbox(request.sandbox_id)
        below = [path for path in sandbox.files if path == request.source or path.startswith(f"{request.source}/")]
        if not below:
            raise not_found("FILE_NOT_FOUND", f"{request.source}: no such file")
        if request.target.startswith(f"{request.source}/"):
            raise invalid_argument("FILE_INVALID_PATH", "a directory cannot go into itself")
        if (request.target in sandbox.files and not request.replace) or request.target in directories(sandbox):
            raise failed_precondition("FILE_EXISTS", f"{request.target}: something is there")
        for path in below:
            target = request.target + path.removeprefix(request.source)
            sandbox.files[target] = sandbox.files.pop(path)
            sandbox.moves.append((path, target))
        sandbox.bell.ring()

    async def make_directory(self, sandbox_id: str, path: str) -> None:
        sandbox = self._sandbox(sandbox_id)
        if path in sandbox.files:
            raise failed_precondition("FILE_EXISTS", f"{path}: something else is there")
        sandbox.directories.add(path)
        sandbox.bell.ring()

    async def remove_file(self, sandbox_id: str, path: str, user: executor.User.ValueType) -> None:  # noqa: ARG002  # rights are not simulated
        sandbox = self._sandbox(sandbox_id)
        found = [name for name in [*sandbox.files, *sandbox.directories] if _is_below(name, path)]
        if not found:
            raise not_found("FILE_NOT_FOUND", f"{path}: no such file")
        for name in found:
            sandbox.files.pop(name, None)
            sandbox.directories.discard(name)
        sandbox.bell.ring()

    def _content(self, sandbox_id: str, path: str) -> bytes:
        sandbox = self._sandbox(sandbox_id)
        if path in directories(sandbox):
            raise failed_precondition("FILE_IS_A_DIRECTORY", f"{path}: is a directory")
        if path not in sandbox.files:
            raise not_found("FILE_NOT_FOUND", f"{path}: no such file")
        return sandbox.files[path]

    @abstractmethod
    def _sandbox(self, sandbox_id: str) -> FakeSandbox: ...


async def _receive(
    sandbox: FakeSandbox,
    header: executor.WriteFileHeader | executor.WriteTreeHeader,
    chunks: AsyncIterator[bytes],
    sha256: Callable[[], str],
) -> bytes:
    held = sandbox.transfers.get(header.transfer_id, b"")
    if header.offset > len(held):
        raise out_of_range("FILE_OUT_OF_RANGE", f"offset {header.offset} is beyond what is held")
    content = bytearray(held[: header.offset])
    try:
        async for chunk in chunks:
            content += chunk
    except BaseException:
        if header.transfer_id:
            sandbox.transfers[header.transfer_id] = bytes(content)
        raise
    sandbox.transfers.pop(header.transfer_id, None)
    if sha256() not in {"", hashlib.sha256(content).hexdigest()}:
        raise invalid_argument("FILE_DIGEST_MISMATCH", "what came is not what was to be sent")
    return bytes(content)


def _archive(found: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in sorted(found.items()):
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def directories(sandbox: FakeSandbox) -> set[str]:
    """Those that were made, and those that files lie in."""
    found = set(sandbox.directories)
    for path in [*sandbox.files, *sandbox.directories]:
        parts = path.split("/")
        found |= {"/".join(parts[:end]) for end in range(1, len(parts))}
    return found


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top}/")


def _info(sandbox: FakeSandbox, path: str, name: str) -> executor.FileInfo:
    if path in sandbox.files:
        return executor.FileInfo(name=name, kind=executor.FILE_KIND_FILE, size=len(sandbox.files[path]))
    return executor.FileInfo(name=name, kind=executor.FILE_KIND_DIRECTORY)
