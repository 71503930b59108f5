"""Manifests are UTF-8, and what is not is named by line."""

from __future__ import annotations

import codecs

from services.resolver.errors import ManifestError


def decode_manifest(path: str, raw: bytes) -> str:
    """The text of a manifest; raises ManifestError where it is not UTF-8 or holds null bytes."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ManifestError(path=path, line=1, reason="is UTF-16; save it as UTF-8")
    content = raw.removeprefix(codecs.BOM_UTF8)
    position = content.find(b"\0")
    if position >= 0:
        line = content[:position].count(b"\n") + 1
        raise ManifestError(path=path, line=line, reason="holds a null byte; save it as UTF-8 text")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        reason = "is not UTF-8; save it as UTF-8"
        raise ManifestError(path=path, line=line, column=column, reason=reason) from error
