"""File calls on a workspace, made from outside: those of the product, and those of an executor that is careless."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import grpc

from qila.gateway.v1 import gateway_pb2 as pb

from .stack import Stack

_READ_BYTES: Final = 1 << 20


class Refused(Exception):
    """A file call that was refused, or failed."""


class FileCalls(Protocol):
    """The file calls that somebody outside makes on a workspace. Each may raise Refused."""

    def read(self, path: str) -> bytes:
        """A file's bytes."""

    def write(self, path: str, data: bytes) -> None:
        """Writes a file."""

    def list(self, path: str) -> list[str]:
        """Names in a directory."""

    def remove(self, path: str) -> None:
        """Removes a file or a tree."""

    def unpack(self, path: str, archive: bytes) -> None:
        """Writes a tree from a tar archive."""

    def pack(self, path: str) -> bytes:
        """A tree as a tar archive."""


class _refusals:  # noqa: N801 - reads as the context that it is
    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, grpc.RpcError | OSError):
            raise Refused(str(error)) from error


@dataclass(frozen=True)
class GatewayFiles:
    """Those of the product, as any client makes them."""

    stack: Stack
    sandbox: str

    def read(self, path: str) -> bytes:
        request = pb.ReadFileRequest(sandbox_id=self.sandbox, path=path)
        with _refusals():
            return b"".join(response.chunk for response in self.stack.gateway.ReadFile(request, timeout=20))

    def write(self, path: str, data: bytes) -> None:
        header = pb.WriteFileHeader(sandbox_id=self.sandbox, path=path)
        parts = [
            pb.WriteFileRequest(header=header),
            pb.WriteFileRequest(chunk=data),
            pb.WriteFileRequest(end=pb.WriteFileEnd()),
        ]
        with _refusals():
            self.stack.gateway.WriteFile(iter(parts), timeout=20)

    def list(self, path: str) -> list[str]:
        with _refusals():
            request = pb.ListFilesRequest(sandbox_id=self.sandbox, path=path)
            return [file.name for file in self.stack.gateway.ListFiles(request, timeout=20).files]

    def remove(self, path: str) -> None:
        with _refusals():
            self.stack.gateway.RemoveFile(pb.RemoveFileRequest(sandbox_id=self.sandbox, path=path), timeout=20)

    def unpack(self, path: str, archive: bytes) -> None:
        header = pb.WriteTreeHeader(sandbox_id=self.sandbox, path=path)

        def parts() -> Iterator[pb.WriteTreeRequest]:
            yield pb.WriteTreeRequest(header=header)
            for start in range(0, len(archive), 1 << 16):
                yield pb.WriteTreeRequest(chunk=archive[start : start + (1 << 16)])
            yield pb.WriteTreeRequest(end=pb.WriteTreeEnd())

        with _refusals():
            self.stack.gateway.WriteTree(parts(), timeout=60)

    def pack(self, path: str) -> bytes:
        request = pb.ReadTreeRequest(sandbox_id=self.sandbox, path=path)
        with _refusals():
            return b"".join(response.chunk for response in self.stack.gateway.ReadTree(request, timeout=60))


@dataclass(frozen=True)
class HostFiles:
    """As a careless executor would make them: the host's root works on the volume.

    Unless it follows links blindly, it looks first whether a path leads out of the workspace.
    """

    workspace: Callable[[], Path]
    follows: bool

    def _path(self, path: str) -> Path:
        workspace = self.workspace()
        full = workspace / path
        if not self.follows and not full.resolve().is_relative_to(workspace.resolve()):
            raise Refused("outside of the workspace")
        return full

    def read(self, path: str) -> bytes:
        with _refusals(), self._path(path).open("rb", buffering=0) as file:
            return file.read(_READ_BYTES)

    def write(self, path: str, data: bytes) -> None:
        with _refusals():
            self._path(path).write_bytes(data)

    def list(self, path: str) -> list[str]:
        with _refusals():
            return [entry.name for entry in self._path(path).iterdir()]

    def remove(self, path: str) -> None:
        with _refusals():
            full = self._path(path)
            if full.is_dir():
                shutil.rmtree(f"{full}/.", ignore_errors=True)
            else:
                full.unlink()

    def unpack(self, path: str, archive: bytes) -> None:
        with _refusals(), tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            # What the library itself would refuse by now is what is asked for here.
            opened.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
            opened.extractall(self._path(path))

    def pack(self, path: str) -> bytes:
        file = io.BytesIO()
        with _refusals(), tarfile.open(fileobj=file, mode="w", dereference=True) as made:
            made.add(self._path(path), arcname=".")
        return file.getvalue()
