"""The part of a program that holds its imports: parsing is most of what planning a large tree takes."""

from __future__ import annotations

import re
from typing import Final

# What may begin a statement in the first column: no clause that goes on with one, no continued line.
_STATEMENT: Final = re.compile(rb"(?<!\\\n)(?<!\\\r\n)^(?!(?:elif|else|except|finally)\b)[A-Za-z_@]", re.MULTILINE)


def import_part(content: bytes) -> bytes:
    """A program without all that follows the statement in which the word "import" stands last.

    It may be cut within a string or a bracket; then, and only then, it has an error that the whole may not have.
    """
    last = content.rfind(b"import")
    if last < 0:
        return b""
    following = _STATEMENT.search(content, last + 1)
    return content[: following.start()] if following else content
