"""What the parameters of queries may be. Rules that the gateway checks itself are not written a second time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import checks
from services.gateway.http.models import EVENT_ID_PATTERN, MAX_INT64, ExecId, Language, PathOrNone, Uint64


class Query(BaseModel):
    """The parameters of a query, which come as text."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoQuery(Query):
    """No parameters."""


class PathQuery(Query):
    """Which path."""

    path: PathOrNone = Field(default="", description="Relative to the workspace; the workspace itself if left out.")


class ListFilesQuery(PathQuery):
    """Which directory, how deep, and what of it."""

    depth: int = Field(default=1, ge=0, le=checks.MAX_DEPTH, description="Levels; 1 is the directory itself.")
    pattern: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(
        default=[], max_length=16, description="Only what one of them matches, as `**/*.py`; may come several times."
    )


class WatchQuery(PathQuery):
    """What is watched."""

    depth: int = Field(default=checks.MAX_DEPTH, ge=0, le=checks.MAX_DEPTH, description="Levels; 0 stands for all.")
    pattern: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(
        default=[], max_length=16, description="Only what one of them matches; may come several times."
    )
    ignored_name: list[Annotated[str, Field(min_length=1, max_length=255)]] = Field(
        default=[], max_length=64, description="Directories of these names are not looked into; several times."
    )

    def message(self, sandbox_id: str) -> pb.WatchFilesRequest:
        """As the gateway takes it."""
        return pb.WatchFilesRequest(
            sandbox_id=sandbox_id,
            path=self.path,
            depth=self.depth,
            patterns=self.pattern,
            ignored_names=self.ignored_name,
        )


class TransferQuery(Query):
    """Where an upload goes on that broke off."""

    transfer_id: str = Field(
        default="",
        pattern="^[A-Za-z0-9_-]{0,64}$",
        description="Chosen by the client: what came stays when the connection is lost; see getTransfer.",
    )
    offset: int = Field(
        default=0,
        ge=0,
        le=checks.MAX_UPLOAD_BYTES,
        description="Where in the whole this body begins; at most what is held of the transfer.",
    )
    sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$", description="Of the whole, from its first byte.")


class WriteFileQuery(TransferQuery):
    """How the file is kept."""

    executable: bool = False


class WriteTreeQuery(TransferQuery, PathQuery):
    """Where the tree goes."""


class ListExecsQuery(Query):
    """Which page."""

    page_size: int = Field(default=100, ge=1, le=checks.MAX_PAGE_SIZE)
    page_token: ExecId = Field(default="", description="As an earlier answer said: what comes after it.")
    running_only: bool = Field(default=False, description="Only those that have not ended.")

    def message(self, sandbox_id: str) -> pb.ListExecsRequest:
        """As the gateway takes it."""
        return pb.ListExecsRequest(sandbox_id=sandbox_id, **self.model_dump())


class StdinQuery(Query):
    """Where in a program's input a body lies."""

    offset: Annotated[int, Field(ge=0, le=MAX_INT64)] | None = Field(
        default=None,
        description="Of its first byte: what is there already is not taken twice. Left out: behind all of it.",
    )
    end: bool = Field(default=False, description="The program reads end of file after this body.")


class EventsQuery(Query):
    """Where to go on, for clients that cannot send Last-Event-ID."""

    after: str = Field(default="", pattern=EVENT_ID_PATTERN, description="The id of the last event that came.")


class ExecQuery(Query):
    """Which exec."""

    exec_id: ExecId = Field(default="", description="The newest that has one, if left out.")


class LockQuery(ExecQuery):
    """Which lock."""

    project: str = Field(default="", description="Of an exec with `install_all`: the directory of one project, or `.`.")
    language: Language = Field(default="", description="Of an exec with `install_all`: the language of one project.")

    native: bool = Field(default=False, description="The ecosystem's own lock instead of qila.lock.json.")


class SbomQuery(ExecQuery):
    """Which SBOM."""

    format: Literal["cyclonedx", "spdx"] = "cyclonedx"


class EgressRecordsQuery(Query):
    """Which records."""

    exec_id: ExecId = ""
    verdict: Literal["", "allowed", "refused", "failed"] = ""
    after: Uint64 = Field(default=0, description="Only records after this sequence.")
    limit: int = Field(default=1000, ge=1, le=10_000, description="Of an answer that is not a stream.")

    def message(self, sandbox_id: str, *, after: int, follow: bool) -> pb.ListEgressRequest:
        """As the gateway takes it."""
        verdict = pb.EgressVerdict.Value(f"EGRESS_VERDICT_{self.verdict.upper() or 'UNSPECIFIED'}")
        return pb.ListEgressRequest(
            sandbox_id=sandbox_id, exec_id=self.exec_id, verdict=verdict, after_sequence=after, follow=follow
        )
