"""Messages as JSON: the proto's names, numbers as numbers, short lower-case enumerations, and the schemas of all that.

Bytes are a string where they are UTF-8, and `NAME_base64` where they are not: exactly one of the two is there.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

# The stubs know two classes of it, and no base of both.
_Field = Any
_BASE64: Final = "_base64"
_TIMESTAMP: Final = Timestamp.DESCRIPTOR.full_name
_DURATION: Final = Duration.DESCRIPTOR.full_name
_INTEGERS: Final = frozenset(
    {FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64}
)


def plain(message: Message) -> dict[str, Any]:
    """The message as JSON; what has presence and is absent is left out."""
    document: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.type == FieldDescriptor.TYPE_BYTES:
            document |= text_or_base64(field.name, value)
        elif _is_map(field):
            document[field.name] = dict(value)
        elif field.is_repeated:
            document[field.name] = [_value(field, item) for item in value]
        else:
            document[field.name] = _value(field, value)
    return document


def text_or_base64(name: str, content: bytes) -> dict[str, str]:
    """Bytes under their name if they are UTF-8, else in base64 under `NAME_base64`."""
    try:
        return {name: content.decode()}
    except UnicodeDecodeError:
        return {name + _BASE64: base64.b64encode(content).decode()}


def word_of(enumeration: EnumDescriptor, number: int) -> str:
    """The short word of a value: `run` of PHASE_RUN; the number for one that is not known here."""
    value = enumeration.values_by_number.get(number)
    return str(number) if value is None else value.name.removeprefix(_prefix(enumeration)).lower()


def schema_of(descriptor: Descriptor, components: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of `plain` for a message: a reference into `components`, which gets what it lacks."""
    if descriptor.full_name == _TIMESTAMP:
        return {"type": "string", "format": "date-time"}
    if descriptor.full_name == _DURATION:
        return {"type": "number", "description": "Seconds."}
    if descriptor.name not in components:
        # First a place, so that a message within itself ends.
        components[descriptor.name] = schema = {"type": "object", "properties": {}}
        properties: dict[str, Any] = {}
        for field in descriptor.fields:
            properties |= _property(field, components)
        required = [
            field.name
            for field in descriptor.fields
            if not field.has_presence and field.type != FieldDescriptor.TYPE_BYTES
        ]
        schema["properties"] = properties
        if required:
            schema["required"] = required
    return {"$ref": f"#/components/schemas/{descriptor.name}"}


def _value(field: _Field, value: Any) -> Any:
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Duration):
        return value.ToMilliseconds() / 1000
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        return word_of(field.enum_type, value)
    return value


def _property(field: _Field, components: dict[str, Any]) -> Mapping[str, Any]:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {field.name: {"type": "string"}, field.name + _BASE64: {"type": "string", "format": "byte"}}
    if _is_map(field):
        return {field.name: {"type": "object", "additionalProperties": {"type": "string"}}}
    schema = _scalar(field, components)
    return {field.name: {"type": "array", "items": schema} if field.is_repeated else schema}


def _scalar(field: _Field, components: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None:
        return schema_of(field.message_type, components)
    if field.enum_type is not None:
        return {"type": "string", "enum": [word_of(field.enum_type, item.number) for item in field.enum_type.values]}
    if field.type == FieldDescriptor.TYPE_BOOL:
        return {"type": "boolean"}
    return {"type": "integer"} if field.type in _INTEGERS else {"type": "string"}


def _is_map(field: _Field) -> bool:
    entry = field.message_type
    return entry is not None and bool(entry.GetOptions().map_entry)


def _prefix(enumeration: EnumDescriptor) -> str:
    """What all names of the enumeration begin with: its first one is PREFIX_UNSPECIFIED."""
    return enumeration.values[0].name.removesuffix("UNSPECIFIED")
