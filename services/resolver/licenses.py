"""SPDX licence expressions: what a text says, if it says one."""

from __future__ import annotations

from functools import cache
from typing import Any

from license_expression import ExpressionError, get_spdx_licensing  # type: ignore[import-untyped] # ships no types

NO_ASSERTION = "NOASSERTION"
# Longer texts are whole licences, which no expression can name.
MAX_EXPRESSION = 500
MAX_RAW_TEXT = 2_000


@cache
def _licensing() -> Any:
    return get_spdx_licensing()


def spdx(text: str | None) -> str | None:
    """The expression in its normal form if every name in it is SPDX's, else None."""
    if not text or len(text) > MAX_EXPRESSION or "\n" in text:
        return None
    licensing = _licensing()
    try:
        parsed = licensing.parse(text, validate=True, strict=True)
    except (ExpressionError, ValueError, TypeError, AttributeError, IndexError):
        return None
    return None if parsed is None else str(parsed)
