"""One SPDX expression for the licence fields of a package.json."""

from __future__ import annotations

from services.resolver.licenses import MAX_RAW_TEXT, NO_ASSERTION, spdx


def license_of(field: object) -> tuple[str, str]:
    """The SPDX expression, and the raw text where only that is known.

    The field is a text, or a list of them, of which the old form lets the user choose.
    """
    texts = [field] if isinstance(field, str) else list(field) if isinstance(field, list | tuple) else []
    names = [text.strip() for text in texts if isinstance(text, str) and text.strip()]
    expressions = [spdx(name) for name in names]
    known = sorted({expression for expression in expressions if expression})
    if known and all(expressions):
        return (known[0] if len(known) == 1 else " OR ".join(_grouped(item) for item in known)), ""
    return NO_ASSERTION, "; ".join(names)[:MAX_RAW_TEXT]


def _grouped(expression: str) -> str:
    return f"({expression})" if " " in expression else expression
