"""Python source as tree-sitter wants it: UTF-8, whatever it was before."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """Source in UTF-8; `problem` says why Python could not read it, `line` where (0 if nowhere in particular)."""

    content: bytes
    problem: str = ""
    line: int = 0


def read_source(raw: bytes) -> Text:
    """Decode by mark or coding cookie; where that fails, as much as can be is kept and the problem named."""
    if raw.startswith(UTF16_MARKS):
        return Text(content=raw.decode("utf-16", "replace").encode("utf-8", "replace"), problem="is UTF-16, not UTF-8")
    content = raw.removeprefix(codecs.BOM_UTF8)
    if b"\0" in content:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        return Text(content=content.replace(b"\0", b" "), problem="holds null bytes", line=line)
    encoding = declared_encoding(content)
    try:
        text = content.decode(encoding)
    except LookupError:
        return Text(content=content.decode("utf-8", "replace").encode(), problem=f"unknown encoding {encoding}", line=1)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return Text(content=content.decode("utf-8", "replace").encode(), problem=f"is not {encoding}", line=line)
    return Text(content=text.encode("utf-8", "replace"))


def declared_encoding(content: bytes) -> str:
    """The encoding that a comment in the first two lines declares, else UTF-8."""
    for line in content.split(b"\n", 2)[:2]:
        match = COOKIE.match(line)
        if match:
            return match.group(1).decode("ascii", "replace")
        if line.strip() and not line.lstrip().startswith(b"#"):
            break
    return "utf-8"
