"""The OpenAPI document: made of the operations that serve, so that it cannot say anything else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf.descriptor import Descriptor
from pydantic.json_schema import models_json_schema

from services.gateway.http.models import PATH_PATTERN, TRANSFER_PATTERN
from services.gateway.http.operation import JSON, Answer, Operation
from services.gateway.http.plain import schema_of
from services.gateway.http.queries import NoQuery
from services.rpc.errors import ErrorCode

_REFERENCE: Final = "#/components/schemas/{model}"
_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "sandbox_id": {"type": "string", "pattern": "^sb_[a-z2-7]{26}$"},
    "exec_id": {"type": "string", "pattern": "^ex_[a-z2-7]{26}$"},
    "path": {
        "type": "string",
        "pattern": f"^{PATH_PATTERN}$",
        "description": "Relative to the workspace, without empty parts, `.` and `..`; its / need not be escaped.",
    },
    "transfer_id": {"type": "string", "pattern": TRANSFER_PATTERN, "description": "As its client chose it."},
}
_LAST_EVENT_ID: Final[Mapping[str, Any]] = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The id of the last event that came: the stream goes on behind it.",
}
_ERROR: Final = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string", "enum": [code.name for code in ErrorCode]},
                "reason": {"type": "string", "description": "What programs decide by."},
                "message": {"type": "string", "description": "Says what to do."},
                "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "required": ["code", "reason", "message", "metadata"],
        }
    },
    "required": ["error"],
}
_FAILED: Final = {
    "description": "It was refused or failed.",
    "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
}


def openapi_document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """The document of all operations, in OpenAPI 3.1."""
    operations = tuple(operations)
    components: dict[str, Any] = {"Error": _ERROR}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, components)
    _, models = models_json_schema(
        [(operation.body, "validation") for operation in operations if operation.body], ref_template=_REFERENCE
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Qila",
            "version": version,
            "description": "Runs code that nobody has read yet. docs/http.md tells more.",
        },
        "paths": paths,
        "components": {"schemas": {**components, **models.get("$defs", {})}},
    }


def _described(operation: Operation, components: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": _parameters(operation),
        "responses": {
            **{str(answer.status): _answer(answer, components) for answer in operation.answers},
            "default": _FAILED,
        },
    }
    if operation.body is not None:
        schema = {"$ref": _REFERENCE.format(model=operation.body.__name__)}
        described["requestBody"] = {"required": operation.body_required, "content": {JSON: {"schema": schema}}}
    if operation.upload is not None:
        media, form = operation.upload
        described["requestBody"] = {"required": operation.body_required, "content": {media: {"schema": form}}}
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _PARAMETERS[name]}
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]
    if operation.query is not NoQuery:
        schema = operation.query.model_json_schema()
        parameters += [
            {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": rule}
            for name, rule in schema["properties"].items()
        ]
    parameters += [
        {"name": name, "in": "header", "required": False, "description": meaning, "schema": {"type": "string"}}
        for name, meaning in operation.headers.items()
    ]
    if operation.event_id:
        parameters.append({**_LAST_EVENT_ID, "schema": {"type": "string", "pattern": operation.event_id}})
    return parameters


def _answer(answer: Answer, components: dict[str, Any]) -> dict[str, Any]:
    content = {media: {"schema": _schema(schema, components)} for media, schema in answer.media.items()}
    return {"description": answer.description, **({"content": content} if content else {})}


def _schema(schema: Any, components: dict[str, Any]) -> Any:
    if isinstance(schema, Descriptor):
        return schema_of(schema, components)
    if isinstance(schema, Mapping):
        return {name: _schema(value, components) for name, value in schema.items()}
    return schema(components) if callable(schema) else schema
