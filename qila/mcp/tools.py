"""The tools. Their docstrings are what a model reads."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from qila.cli.diffs import as_text
from qila.client import ExecOptions, QilaError, UnavailableError
from qila.gateway.v1 import gateway_pb2 as pb
from qila.mcp.planning import Dependencies, PlanError, plan
from qila.mcp.running import MAX_RESULT_BYTES, RunReport, run
from qila.mcp.session import Session

MAX_TEXT_BYTES: Final = 1 << 20
MAX_DOCUMENT_BYTES: Final = 4 << 20
MAX_WRITE_CHARACTERS: Final = 16 << 20
# Of a listing, beside the names.
_ROW_BYTES: Final = 60
_SNIPPETS: Final = {
    "python": "snippet.py",
    "javascript": "snippet.js",
    "typescript": "snippet.ts",
    "go": "snippet.go",
    "java": "Snippet.java",
}
_KINDS: Final = {pb.FILE_KIND_FILE: "file", pb.FILE_KIND_DIRECTORY: "directory", pb.FILE_KIND_LINK: "link"}
_FORMATS: Final = {"cyclonedx": pb.SBOM_FORMAT_CYCLONEDX_1_6, "spdx": pb.SBOM_FORMAT_SPDX_2_3}

Language = Literal["python", "javascript", "typescript", "go", "java"]
Encoding = Literal["utf-8", "base64"]
Code = Annotated[str, Field(description="The whole program, as one file.", max_length=2 << 20)]
Path = Annotated[str, Field(description="Relative to the workspace, as data/in.csv.", max_length=4096)]
Arguments = Annotated[list[str] | None, Field(description="The program's arguments.", max_length=1000)]
Stdin = Annotated[
    str | None, Field(description="What the program reads from its input; none if left out.", max_length=16 << 20)
]
Seconds = Annotated[float | None, Field(description="How long it may run; 10 minutes if left out.", gt=0, le=86_400)]
InstallMissing = Annotated[
    bool,
    Field(description="Also install what is imported and no manifest declares. Not together with stdin."),
]
ExecId = Annotated[str, Field(description="An exec_id that a run told; the newest one with a lock if left out.")]
SessionContext = Context[Session, Any]


@dataclass(frozen=True, kw_only=True)
class FileRow:
    """One name in a directory."""

    name: str
    kind: str
    size: int
    link_target: str = ""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The names in a directory, sorted; `left_out` are as many more as a model is not asked to read."""

    files: list[FileRow]
    left_out: int


@dataclass(frozen=True, kw_only=True)
class FileText:
    """A file, or its beginning: `size` is that of what was read."""

    path: str
    encoding: str
    content: str
    size: int
    truncated: bool


@dataclass(frozen=True, kw_only=True)
class Written:
    """A file that was written."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """A lockfile or an SBOM."""

    name: str
    content: str
    exec_id: str = ""


async def run_code(
    *,
    ctx: SessionContext,
    language: Language,
    code: Code,
    args: Arguments = None,
    stdin: Stdin = None,
    install_missing: InstallMissing = False,
    timeout_seconds: Seconds = None,
) -> RunReport:
    """Run a program in the sandbox. The packages that it imports are found and installed by themselves.

    It runs in the workspace, where earlier files are, without a network but for the package registries. Calls for the
    same language run one after the other.
    """
    session, name = ctx.request_context.lifespan_context, _SNIPPETS[language]
    async with session.turn(name):
        with told():
            await session.client.put(await session.sandbox(), name, io.BytesIO(_encoded(code)))
        return await run_program(
            ctx=ctx,
            file=name,
            args=args,
            stdin=stdin,
            install_missing=install_missing,
            timeout_seconds=timeout_seconds,
        )


async def run_program(
    *,
    ctx: SessionContext,
    file: Path,
    args: Arguments = None,
    stdin: Stdin = None,
    install_missing: InstallMissing = False,
    timeout_seconds: Seconds = None,
) -> RunReport:
    """Run a program of the workspace. What its manifest or its imports ask for is installed first."""
    if install_missing and stdin is not None:
        raise ToolError("stdin and install_missing do not go together: what one run has read, another cannot")
    options: ExecOptions = {
        "stdin": stdin is not None,
        "install_missing": install_missing,
        "run_seconds": timeout_seconds,
    }
    with told():
        session = ctx.request_context.lifespan_context
        what = pb.Program(file=file, args=args or [])
        execution = session.client.exec(await session.sandbox(), what, **options)
        return await run(execution, ctx.report_progress, stdin=_encoded(stdin or ""))


async def put_file(
    *,
    ctx: SessionContext,
    path: Path,
    content: Annotated[str, Field(max_length=MAX_WRITE_CHARACTERS)],
    encoding: Encoding = "utf-8",
    executable: bool = False,
) -> Written:
    """Write a file of the workspace, as a program, its data, or its manifest; directories are made."""
    try:
        data = base64.b64decode(content, validate=True) if encoding == "base64" else _encoded(content)
    except binascii.Error as error:
        raise ToolError(f"content is no base64: {error}") from None
    with told():
        session = ctx.request_context.lifespan_context
        written = await session.client.put(await session.sandbox(), path, io.BytesIO(data), executable=executable)
    return Written(path=path, size=written.size, sha256=written.sha256)


async def read_file(
    *,
    ctx: SessionContext,
    path: Path,
    encoding: Encoding = "utf-8",
    max_bytes: Annotated[int, Field(gt=0, le=MAX_TEXT_BYTES)] = 100_000,
) -> FileText:
    """Read a file of the workspace, as text or as base64, from its beginning."""
    data = b""
    with told():
        session = ctx.request_context.lifespan_context
        async for chunk in session.client.get(await session.sandbox(), path):
            data += chunk
            if len(data) > max_bytes:
                break
    kept = data[:max_bytes]
    text = base64.b64encode(kept).decode() if encoding == "base64" else kept.decode("utf-8", "replace")
    return FileText(path=path, encoding=encoding, content=text, size=len(kept), truncated=len(data) > max_bytes)


async def list_files(
    *,
    ctx: SessionContext,
    path: Annotated[str, Field(description="A directory; the workspace itself if left out.", max_length=4096)] = "",
) -> Listing:
    """List a directory of the workspace."""
    with told():
        session = ctx.request_context.lifespan_context
        found = await session.client.ls(await session.sandbox(), path)
    rows: list[FileRow] = []
    left = MAX_RESULT_BYTES
    for file in found:
        left -= _ROW_BYTES + len(file.name.encode()) + len(file.link_target.encode())
        if left < 0:
            break
        kind = _KINDS.get(file.kind, "other")
        rows.append(FileRow(name=file.name, kind=kind, size=file.size, link_target=file.link_target))
    return Listing(files=rows, left_out=len(found) - len(rows))


async def dependencies(
    *,
    language: Language,
    code: Code,
    manifest_name: Annotated[
        str, Field(description="As requirements.txt; none if left out.", pattern=r"^$|^[\w.-]{1,100}$")
    ] = "",
    manifest: Annotated[str, Field(max_length=2 << 20)] = "",
) -> Dependencies:
    """Say what a program needs, and why, without running or installing anything."""
    files = {_SNIPPETS[language]: code}
    if manifest_name in {".", ".."} or manifest_name in files:
        raise ToolError(f"{manifest_name}: not the name of a manifest")
    if manifest_name:
        files[manifest_name] = manifest
    try:
        return await plan(files)
    except PlanError as error:
        raise ToolError(str(error)) from None


async def lock(
    *,
    ctx: SessionContext,
    exec_id: ExecId = "",
    native: Annotated[bool, Field(description="The ecosystem's own lock, as pylock.toml.")] = False,
) -> Document:
    """The lockfile of what a run had installed: exact versions, hashes, licences, and what required them."""
    with told():
        session = ctx.request_context.lifespan_context
        found = await session.client.lock(await session.sandbox(), exec_id)
    if native and not found.native_lock:
        raise ToolError("this run has no native lock")
    name = found.native_lock_name if native else "qila.lock.json"
    return Document(name=name, content=_text(found.native_lock if native else found.lock), exec_id=found.exec_id)


async def sbom(
    *,
    ctx: SessionContext,
    exec_id: ExecId = "",
    format: Literal["cyclonedx", "spdx"] = "cyclonedx",  # noqa: A002 - its name for a model
) -> Document:
    """The software bill of materials of a run, as JSON."""
    with told():
        session = ctx.request_context.lifespan_context
        found = await session.client.sbom(await session.sandbox(), exec_id, _FORMATS[format])
    return Document(name=f"sbom.{format}.json", content=_text(found), exec_id=exec_id)


async def diff(
    *,
    ctx: SessionContext,
    before: Annotated[str, Field(description="The exec_id of the earlier run.")],
    after: Annotated[str, Field(description="That of the later one; the newest if left out.")] = "",
) -> str:
    """What differs between the packages of two runs: added, removed, and changed versions, hashes and licences."""
    with told():
        session = ctx.request_context.lifespan_context
        sandbox = await session.sandbox()
        sides = [
            pb.LockReference(exec=pb.ExecReference(sandbox_id=sandbox, exec_id=exec_id)) for exec_id in (before, after)
        ]
        found = await session.client.diff(*sides)
    return "\n".join(line.plain for line in as_text(found))


TOOLS: Final = (run_code, run_program, put_file, read_file, list_files, dependencies, lock, sbom, diff)


@contextmanager
def told() -> Iterator[None]:
    """Says to the model what the gateway refused."""
    try:
        yield
    except UnavailableError as error:
        raise ToolError(f"Qila does not answer: {error} [{error.reason}]; 'qila up' starts it") from error
    except QilaError as error:
        raise ToolError(f"{error} [{error.reason}]") from error


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ToolError(f"the text cannot be written as UTF-8: {error.reason}; send it as base64") from None


def _text(document: bytes) -> str:
    if len(document) > MAX_DOCUMENT_BYTES:
        raise ToolError(f"the document has {len(document)} bytes, too many to read; use the qila command")
    return document.decode("utf-8", "replace")
