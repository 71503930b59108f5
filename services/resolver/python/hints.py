"""What the source itself says is to be installed: `# pip install x`, `!pip install x`, `%pip install x`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

MAX_HINTS = 50
COMMAND = re.compile(rb"\bpip[\d.]*[ \t]+install[ \t]+(?P<words>[^\n`#;&|)]{1,500})")
# Options that take the next word.
WITH_VALUE = frozenset(
    {"-r", "-c", "-e", "-i", "-f", "-t", "--requirement", "--index-url", "--extra-index-url", "--target"}
)
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
SENTENCE_MARKS = (",", ".", ":")
# A sentence goes on behind the name: "pip install the package".
PROSE = frozenset(
    {"a", "an", "and", "all", "any", "it", "or", "the", "this", "them", "these", "to", "with", "your", "for", "it."}
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hint:
    """One requirement that a line of a file names."""

    specifier: str
    name: str
    line: int


def find_hints(content: bytes) -> list[Hint]:
    """The requirements that pip commands in the text name, in order; words that are none end their command."""
    if b"pip" not in content:
        return []
    found: list[Hint] = []
    line, position = 1, 0
    for match in COMMAND.finditer(content):
        line += content.count(b"\n", position, match.start())
        position = match.start()
        found += _of_command(line, match["words"].decode("utf-8", "replace").split())
        if len(found) >= MAX_HINTS:
            break
    return found[:MAX_HINTS]


def _of_command(line: int, words: list[str]) -> list[Hint]:
    found: list[Hint] = []
    takes_value = False
    for word in words:
        if takes_value or word.startswith("-"):
            takes_value = not takes_value and word in WITH_VALUE
            continue
        hint = _hint(line, word.strip("'\",.:"))
        if hint is None:
            break
        found.append(hint)
        if word.endswith(SENTENCE_MARKS):
            break
    return found


def _hint(line: int, word: str) -> Hint | None:
    try:
        parsed = Requirement(word)
    except InvalidRequirement:
        return None
    if parsed.url or not NAME.fullmatch(parsed.name) or word.lower() in PROSE:
        return None
    return Hint(specifier=word, name=str(canonicalize_name(parsed.name)), line=line)
