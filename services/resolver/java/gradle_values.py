"""Values in a Gradle build script that can be known without running it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from services.resolver.java.gradle_lexer import Statement, Token

MAX_VALUE = 2_000
MAX_ROUNDS = 10
REFERENCE = re.compile(r"\$\{([^${}]{1,200})\}|\$([A-Za-z_]\w{0,99}(?:\.[A-Za-z_]\w{0,99}){0,5})")
PROPERTY_CALL = re.compile(
    r"""(?:\w+\.)*(?:property|findProperty|get|getProperty|ext|extra)\s*[(\[]\s*['"]([\w.-]+)['"]\s*[)\]].*"""
)
OWNERS = re.compile(r"(?:(?:project|rootProject|ext|extra|this|libs)\.)*")
DECLARING = frozenset({"def", "val", "var", "final", "String", "const"})
GRADLE_PROPERTY = re.compile(r"^[ \t]*([\w.-]{1,200})[ \t]*[=:][ \t]*([^\r\n]{0,2000})", re.MULTILINE)


class Values:
    """Names and their texts, as assignments give them."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._texts: dict[str, str] = {}

    def learn_properties(self, content: bytes) -> None:
        """Take over a gradle.properties."""
        for match in GRADLE_PROPERTY.finditer(content.decode("utf-8", "replace")):
            self._texts[match[1]] = match[2].strip()

    def learn(self, statements: Iterable[Statement]) -> None:
        """Take over the assignments of texts in a script, those inside `ext`, `buildscript` and the like too."""
        for statement in statements:
            self._learn_one(statement.tokens)
            if statement.block and statement.name in {
                "ext",
                "buildscript",
                "allprojects",
                "subprojects",
                "extra.apply",
            }:
                self.learn(statement.block)

    def know(self, name: str, text: str) -> None:
        """Give a name a text."""
        self._texts[name] = text[:MAX_VALUE]

    def text_of(self, token: Token) -> str | None:
        """What a text or a name stands for; None if that is not known."""
        if token.kind == "word":
            return self._look_up(token.text)
        if token.kind != "text":
            return None
        return token.text if token.fixed else self._filled(token.text)

    def join(self, tokens: Sequence[Token]) -> str | None:
        """Texts and names with `+` between them."""
        if not tokens or len(tokens) % 2 == 0:
            return None
        parts = [self.text_of(token) for token in tokens[::2]]
        if any(token.text != "+" for token in tokens[1::2]) or None in parts:
            return None
        return "".join(part for part in parts if part is not None)[:MAX_VALUE]

    def _look_up(self, expression: str) -> str | None:
        call = PROPERTY_CALL.fullmatch(expression.strip())
        name = call[1] if call else OWNERS.sub("", expression.strip(), count=1)
        return self._texts.get(name)

    def _filled(self, text: str) -> str | None:
        for _ in range(MAX_ROUNDS):
            missing = False

            def put(match: re.Match[str]) -> str:
                nonlocal missing
                value = self._look_up(match[1] or match[2])
                missing = missing or value is None
                return value or ""

            text = REFERENCE.sub(put, text)[:MAX_VALUE]
            if missing:
                return None
            if "$" not in text:
                return text
        return None

    def _learn_one(self, tokens: list[Token]) -> None:
        for name, value in _assignments(tokens):
            text = self.join(value)
            if text is not None:
                self._texts[name] = text
            elif value and value[0].text == "[":
                for key, inner in _map_entries(value):
                    text = self.text_of(inner)
                    if text is not None:
                        self._texts[f"{name}.{key}"] = text


def _assignments(tokens: list[Token]) -> Iterator[tuple[str, list[Token]]]:
    """Name and value of `x = …`, `ext.x = …`, `ext["x"] = …`, `set("x", …)` and `val x by extra(…)`."""
    words = [token.text for token in tokens]
    if "=" in words:
        at = words.index("=")
        left = [token for token in tokens[:at] if token.text not in DECLARING]
        texts = [token.text for token in left if token.kind == "text"]
        names = [token.text for token in left if token.kind == "word"]
        if ":" in [token.text for token in left]:
            names = names[:1]
        name = texts[-1] if texts else OWNERS.sub("", names[-1], count=1) if names else ""
        if name:
            yield name, tokens[at + 1 :]
    elif words[2:5] == ["by", "extra", "("]:
        yield words[1], tokens[5:-1]
    elif words and words[0].endswith(("ext.set", "extra.set")) and words[1:4:2] == ["(", ","]:
        yield words[2], tokens[4:-1]


def _map_entries(tokens: list[Token]) -> Iterator[tuple[str, Token]]:
    for index in range(len(tokens) - 2):
        if tokens[index + 1].text == ":" and tokens[index].kind in {"word", "text"}:
            yield tokens[index].text, tokens[index + 2]
