"""One call of the door: where it is, what it takes and answers. Routes and the OpenAPI document are made of these."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.descriptor import Descriptor
from starlette.requests import Request
from starlette.responses import Response

from services.gateway.http.answers import while_wanted
from services.gateway.http.bodies import LARGE_AT_ONCE, MAX_BODY_BYTES
from services.gateway.http.models import Body, ExecBody
from services.gateway.http.queries import NoQuery, Query
from services.gateway.servicer import GatewayServicer

EVENT_STREAM: Final = "text/event-stream"
JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
FORM: Final = "multipart/form-data"
TAR: Final = "application/x-tar"
TEXT: Final[Mapping[str, Any]] = {"type": "string"}


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the calls need: the gateway's own calls, and the door that they come through.

    Attributes:
        gateway: the same object that answers gRPC: each call is specified once, in the proto.
        stopping: set when the door closes; streams end then, their clients come back.
        large: turns for bodies that may be large.
        heartbeat: seconds of silence after which a stream says that it lives.
    """

    gateway: GatewayServicer
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LARGE_AT_ONCE))
    heartbeat: float = 15.0


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, read as far as its operation says."""

    services: Services
    request: Request
    query: Query
    body: Body | ExecBody | None

    @property
    def gateway(self) -> GatewayServicer:
        """The gateway's calls."""
        return self.services.gateway

    @property
    def sandbox_id(self) -> str:
        """As the path names it."""
        return str(self.request.path_params["sandbox_id"])

    @property
    def exec_id(self) -> str:
        """As the path names it."""
        return str(self.request.path_params["exec_id"])

    @property
    def path(self) -> str:
        """Of a file, as the path names it."""
        return str(self.request.path_params["path"])

    @property
    def wants_events(self) -> bool:
        """Whether the client accepts server-sent events."""
        accepted = ",".join(self.request.headers.getlist("accept")).split(",")
        return any(item.partition(";")[0].strip().lower() == EVENT_STREAM for item in accepted)

    async def wanted(self, work: Any) -> Any:
        """Does the work, which may take long, while its client is there."""
        return await while_wanted(work, self.request.receive, self.services.stopping)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a call answers when all is well: a schema for each media type.

    A message's descriptor stands for its JSON, wherever in a schema it is; a function makes a schema out of others.
    """

    description: str
    status: int = 200
    media: Mapping[str, Descriptor | Mapping[str, Any] | Callable[[dict[str, Any]], dict[str, Any]]] = field(
        default_factory=dict
    )


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One call.

    Attributes:
        calls: what of GatewayService it makes.
        upload: the media type of a body that its handler reads by itself, with its schema.
        event_id: the form of Last-Event-ID, if the call may go on behind an event.
        headers: further headers that it heeds, with what they mean.
    """

    name: str
    method: str
    path: str
    summary: str
    handle: Callable[[Call], Awaitable[Response]]
    calls: tuple[str, ...]
    answers: tuple[Answer, ...]
    body: type[Body | ExecBody] | None = None
    body_required: bool = False
    body_limit: int = MAX_BODY_BYTES
    query: type[Query] = NoQuery
    upload: tuple[str, Mapping[str, Any]] | None = None
    event_id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
