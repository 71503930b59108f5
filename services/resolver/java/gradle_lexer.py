"""The words of a Gradle build script, in Groovy or Kotlin, and its blocks; nothing of it is run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from services.resolver.errors import ManifestError

MAX_TOKENS = 200_000
MAX_DEPTH = 64
# Between slashes is a text where a value may begin; elsewhere they divide. What is not closed reaches to the end, so
# that nothing is looked at twice.
TOKEN = re.compile(
    r"""(?P<space>[ \t\r\f]+|\\\n)
    |(?P<comment>//[^\n]*|/\*(?:[^*]|\*(?!/))*(?:\*/|\Z))
    |(?P<newline>\n|;)
    |(?P<text>\"\"\"(?:[^"\\]|\\.?|"(?!""))*(?:\"\"\"|\Z)|'''(?:[^'\\]|\\.?|'(?!''))*(?:'''|\Z)
        |(?:(?<=[(,=~\[{:!])|(?<=[(,=~\[{:!][ ]))/(?:[^/\\\n]|\\[^\n])*/
        |"(?:[^"\\\n]|\\[^\n]?)*(?:"|(?=\n)|\Z)|'(?:[^'\\\n]|\\[^\n]?)*(?:'|(?=\n)|\Z))
    |(?P<word>[A-Za-z_$][\w$-]*(?:\.[A-Za-z_$][\w$-]*)*|\d[\w.]*)
    |(?P<mark>.)""",
    re.VERBOSE | re.DOTALL,
)
ESCAPE = re.compile(r"\\(.)", re.DOTALL)
OPENING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """A word, a text (without its quotes), a mark, or the end of a line. `fixed`: nothing is put into the text."""

    kind: str
    text: str
    line: int
    fixed: bool = True


@dataclass(kw_only=True, slots=True)
class Statement:
    """The tokens of one statement up to its block, and the statements in that; `block` is None if it has none."""

    tokens: list[Token] = field(default_factory=list)
    block: list[Statement] | None = None

    @property
    def line(self) -> int:
        """Where it begins."""
        return self.tokens[0].line if self.tokens else 0

    @property
    def name(self) -> str:
        """Its first word, or the text that stands in the place of one."""
        return self.tokens[0].text if self.tokens else ""


def parse_script(path: str, content: bytes) -> list[Statement]:
    """The statements of a script; raises ManifestError with the line."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ManifestError(path=path, reason="is not UTF-8", line=line) from error
    return _statements(path, _tokens(path, text))


def _tokens(path: str, text: str) -> list[Token]:
    tokens: list[Token] = []
    line = 1
    for match in TOKEN.finditer(text):
        kind, word = match.lastgroup or "", match[0]
        if kind == "text":
            width = 3 if word[:3] in {'"""', "'''"} else 1
            # In Groovy, single quotes keep what looks like a reference as it is.
            plain = (
                ESCAPE.sub(r"\1", word[width:-width]) if "\\$" not in word else word[width:-width].replace("\\$", "")
            )
            tokens.append(Token(kind=kind, text=plain, line=line, fixed=word[0] == "'" or "$" not in word))
        elif kind not in {"space", "comment"}:
            tokens.append(Token(kind=kind, text=word, line=line))
        line += word.count("\n")
        if len(tokens) > MAX_TOKENS:
            raise ManifestError(path=path, reason=f"has more than {MAX_TOKENS} words", line=line)
    return tokens


def _statements(path: str, tokens: list[Token]) -> list[Statement]:
    """Statements end with a line, unless a bracket is open; a block belongs to what stands in front of it."""
    root: list[Statement] = []
    # Of each open block: where its statements go, and how many brackets were open in front of it.
    blocks: list[list[Statement]] = [root]
    current = [Statement()]
    brackets: list[list[str]] = [[]]
    for token in tokens:
        if token.kind == "mark" and token.text == "{":
            statement = current[-1]
            statement.block = [] if statement.block is None else statement.block
            blocks.append(statement.block)
            current.append(Statement())
            brackets.append([])
            if len(blocks) > MAX_DEPTH:
                raise ManifestError(path=path, reason=f"has blocks more than {MAX_DEPTH} deep", line=token.line)
        elif token.kind == "mark" and token.text == "}":
            _close(blocks[-1], current[-1])
            if len(blocks) == 1:
                raise ManifestError(path=path, reason="closes a block that was not opened", line=token.line)
            blocks.pop()
            current.pop()
            brackets.pop()
        elif token.kind == "newline" and not brackets[-1]:
            _close(blocks[-1], current[-1])
            current[-1] = Statement()
        elif token.kind != "newline":
            _count(brackets[-1], token)
            current[-1].tokens.append(token)
    _close(blocks[-1], current[-1])
    if len(blocks) > 1:
        raise ManifestError(path=path, reason="opens a block that is not closed", line=tokens[-1].line)
    return root


def _count(open_brackets: list[str], token: Token) -> None:
    if token.kind == "mark" and token.text in "([":
        open_brackets.append(OPENING[token.text])
    elif open_brackets and token.kind == "mark" and token.text == open_brackets[-1]:
        open_brackets.pop()


def _close(block: list[Statement], statement: Statement) -> None:
    if statement.tokens or statement.block is not None:
        block.append(statement)
