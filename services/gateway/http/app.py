"""The application: operations as routes, behind the guard."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from services.gateway.http import documents, execs, files, interaction, sandboxes, trees, watches
from services.gateway.http.answers import ClientGoneError, error_response, json_response
from services.gateway.http.bodies import MAX_BODY_BYTES, read_json, read_query, validated
from services.gateway.http.connect import CONNECT_PATH, connect_app
from services.gateway.http.guard import Guard
from services.gateway.http.models import Body, ExecBody
from services.gateway.http.openapi import openapi_document
from services.gateway.http.operation import JSON, Answer, Call, Operation, Services
from services.gateway.http.ranges import RANGE_HEADERS
from services.rpc.errors import ErrorCode, QilaError, internal, not_found

_LOG: Final = structlog.get_logger("services.gateway.http")
# What the browsers' libraries of Connect and gRPC-Web send and read.
_CONNECT_HEADERS: Final = (
    "connect-protocol-version",
    "connect-timeout-ms",
    "grpc-timeout",
    "x-grpc-web",
    "x-user-agent",
)
_CONNECT_ANSWERS: Final = ("grpc-status", "grpc-message", "grpc-status-details-bin")
_OWN_ANSWERS: Final = (
    "accept-ranges",
    "content-range",
    "etag",
    "x-qila-entries",
    "x-qila-exec-id",
    "x-qila-lock-name",
    "x-qila-request-id",
    "x-qila-skipped",
)
_CLIENT_GONE: Final = 499
_METHOD_NOT_ALLOWED: Final = 405


def build_app(services: Services, *, hosts: Sequence[str], origins: Sequence[str]) -> ASGIApp:
    """The door's application.

    Args:
        services: what the calls need.
        hosts: what a Host header may say, exactly.
        origins: whose pages may call, exactly.
    """
    app: ASGIApp = Starlette(
        routes=_routes(services, operations_of_door()),
        exception_handlers={HTTPException: _answer_http_exception},
    )
    if origins:
        app = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["content-type", "last-event-id", *RANGE_HEADERS, *_CONNECT_HEADERS],
            expose_headers=[*_OWN_ANSWERS, *_CONNECT_ANSWERS],
        )
    return Guard(app, hosts=hosts, origins=origins)


def operations_of_door() -> tuple[Operation, ...]:
    """Every call of the door, but for the document of them and Connect."""
    serving = {"type": "object", "properties": {"status": {"const": "serving"}}, "required": ["status"]}
    health = Operation(
        name="getHealth",
        method="GET",
        path="/v1/health",
        summary="Whether the door answers.",
        handle=_health,
        calls=(),
        answers=(Answer(description="It does.", media={JSON: serving}),),
    )
    groups = (sandboxes, files, trees, watches, execs, interaction, documents)
    return (*(operation for group in groups for operation in group.OPERATIONS), health)


def _routes(services: Services, operations: Sequence[Operation]) -> list[BaseRoute]:
    document = openapi_document(operations, version("qila"))

    async def openapi(_request: Request) -> Response:
        return json_response(document)

    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    # One route for all methods of a path: so a refused method is told all that are allowed.
    routes = [_route(services, path, methods) for path, methods in by_path.items()]
    described = _exactly(Route("/openapi.json", openapi, methods=["GET"]))
    return [*routes, described, Mount(CONNECT_PATH, connect_app(services))]


def _route(services: Services, path: str, methods: dict[str, Operation]) -> Route:
    async def endpoint(request: Request) -> Response:
        return await _answered(services, request, methods[request.method])

    return _exactly(Route(path.replace("{path}", "{path:path}"), endpoint, methods=list(methods)))


def _exactly(route: Route) -> Route:
    """Without HEAD, which would run what GET runs for an answer that nobody gets."""
    assert route.methods is not None
    route.methods.discard("HEAD")
    return route


async def _answered(services: Services, request: Request, operation: Operation) -> Response:
    ids = {name: request.path_params[name][:64] for name in ("sandbox_id", "exec_id") if name in request.path_params}
    structlog.contextvars.bind_contextvars(**ids)
    try:
        if operation.body_limit > MAX_BODY_BYTES and not _is_small(request):
            async with services.large:
                return await _called(services, request, operation)
        return await _called(services, request, operation)
    except ClientGoneError:
        return Response(status_code=_CLIENT_GONE)
    except QilaError as error:
        return error_response(error)
    except Exception:  # noqa: BLE001  # as an interceptor of gRPC
        # Whatever it is, its text must not reach the caller.
        _LOG.exception("call_crashed", operation=operation.name)
        return error_response(internal("INTERNAL", "a fault in Qila; its log tells more under the request id"))


def _is_small(request: Request) -> bool:
    """Whether its body is said to be small: most are, and need not wait for a turn."""
    announced = request.headers.get("content-length", "")
    return announced.isdecimal() and int(announced[:20]) <= MAX_BODY_BYTES


async def _called(services: Services, request: Request, operation: Operation) -> Response:
    query = read_query(operation.query, request.query_params)
    body: Body | ExecBody | None = None
    if operation.body is not None:
        body = validated(operation.body, await read_json(request, operation.body_limit))
    return await operation.handle(Call(services=services, request=request, query=query, body=body))


async def _health(_call: Call) -> Response:
    return json_response({"status": "serving"})


async def _answer_http_exception(request: Request, exception: Exception) -> Response:
    assert isinstance(exception, HTTPException)
    if exception.status_code == _METHOD_NOT_ALLOWED:
        message = f"{request.method[:16]} is not among the methods of this path; see Allow, or /openapi.json"
        error = QilaError(ErrorCode.UNIMPLEMENTED, "METHOD_NOT_ALLOWED", message)
        return error_response(error, exception.headers)
    return error_response(not_found("NO_SUCH_PATH", "nothing is served here; /openapi.json lists what is"))
