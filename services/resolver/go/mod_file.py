"""go.mod and go.work, read as the go command reads them: the same grammar, and errors with the line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.go.names import QUERY, VERSION, is_path, language_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_LINES = 50_000
MAX_DIRECTIVES = 20_000
MAX_TOKEN = 4_096
TOKEN = re.compile(r'[ \t\r]+|//.*|"(?:[^"\\]|\\.)*"|`[^`]*`|=>|[()\[\],]|[^\s()\[\],"`]+|.')
OPENING, CLOSING = "(", ")"
# The words of a module with its version, and of the two ends of an interval.
VERSIONED = INTERVAL = 2
GODEBUG = re.compile(r"[A-Za-z0-9_]{1,100}=[^\s,]{1,200}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Required:
    """One `require`; `version` may be a query such as `latest`, which only the go command can answer."""

    path: str
    version: str
    line: int
    indirect: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Replaced:
    """One `replace`: a module, or one version of it, by a directory (without a version) or by another module."""

    path: str
    version: str
    new_path: str
    new_version: str
    line: int

    @property
    def is_local(self) -> bool:
        """Whether a directory stands for the module."""
        return not self.new_version


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A text of a directive and its line."""

    text: str
    line: int


@dataclass(kw_only=True, slots=True)
class ModFile:
    """What a go.mod or a go.work says."""

    path: str
    module: Place | None = None
    go: Place | None = None
    toolchain: Place | None = None
    requires: list[Required] = field(default_factory=list)
    replaces: list[Replaced] = field(default_factory=list)
    tools: list[Place] = field(default_factory=list)
    uses: list[Place] = field(default_factory=list)
    ignores: list[Place] = field(default_factory=list)
    excludes: list[tuple[str, str]] = field(default_factory=list)

    def error(self, reason: str, line: int = 0) -> ManifestError:
        """An error of this file."""
        return ManifestError(path=self.path, line=line, reason=reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """The words of one line, and the comment behind them."""

    number: int
    words: tuple[str, ...]
    comment: str


def read_go_mod(content: bytes, path: str) -> ModFile:
    """Read a go.mod. Raises ManifestError with the line."""
    file = _read(content, path, _MOD_READERS)
    if file.module is None:
        raise file.error("there is no `module` line; `go mod init NAME` writes one")
    return file


def read_go_work(content: bytes, path: str) -> ModFile:
    """Read a go.work. Raises ManifestError with the line."""
    return _read(content, path, _WORK_READERS)


def _read(content: bytes, path: str, readers: dict[str, Callable[[ModFile, _Line], None]]) -> ModFile:
    file = ModFile(path=path)
    for count, (verb, line) in enumerate(_directives(_lines(content, file), file), start=1):
        reader = readers.get(verb)
        if count > MAX_DIRECTIVES:
            raise file.error(f"holds more than {MAX_DIRECTIVES} directives", line.number)
        if reader is None:
            raise file.error(f"unknown directive {verb[:80]!r}", line.number)
        reader(file, line)
    return file


def _lines(content: bytes, file: ModFile) -> Iterator[_Line]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise file.error("is not UTF-8", content[: error.start].count(b"\n") + 1) from error
    rows = text.removeprefix("\ufeff").split("\n")
    if len(rows) > MAX_LINES:
        raise file.error(f"has more than {MAX_LINES} lines")
    for number, row in enumerate(rows, start=1):
        yield _line(row, number, file)


def _line(row: str, number: int, file: ModFile) -> _Line:
    words, comment = [], ""
    # One after the other: a text that does not end is an error before the rest of a long row is looked at.
    for match in TOKEN.finditer(row):
        token = match[0]
        if token.startswith("//"):
            comment = token[2:].strip()
        elif token.strip():
            words.append(_word(token, number, file))
    return _Line(number=number, words=tuple(words), comment=comment)


def _word(token: str, number: int, file: ModFile) -> str:
    if len(token) > MAX_TOKEN or not token.isprintable():
        raise file.error("holds a word that is too long or cannot be printed", number)
    if token[0] not in '"`':
        return str(token)
    if len(token) == 1 or token[-1] != token[0]:
        raise file.error("a quoted text does not end on its line", number)
    return re.sub(r"\\(.)", r"\1", token[1:-1]) if token[0] == '"' else token[1:-1]


def _directives(lines: Iterator[_Line], file: ModFile) -> Iterator[tuple[str, _Line]]:
    """Each directive with its verb, whether it stands alone or in a block."""
    verb, opened = "", 0
    for line in lines:
        words = line.words
        if not words:
            continue
        if verb and words == (CLOSING,):
            verb = ""
        elif verb:
            yield verb, line
        elif words[1:] == (OPENING,):
            verb, opened = words[0], line.number
        elif words[1:] == (OPENING, CLOSING):
            continue
        else:
            yield words[0], _Line(number=line.number, words=words[1:], comment=line.comment)
    if verb:
        raise file.error(f"the block {verb} ( is never closed", opened)


def _module(file: ModFile, line: _Line) -> None:
    if file.module is not None:
        raise file.error("`module` is there twice", line.number)
    file.module = Place(text=_path(file, line, _exactly(file, line, 1)[0]), line=line.number)


def _go(file: ModFile, line: _Line) -> None:
    version = _exactly(file, line, 1)[0]
    if file.go is not None:
        raise file.error("`go` is there twice", line.number)
    if not language_of(version):
        raise file.error(f"{version[:80]!r} is no version of Go, such as 1.23", line.number)
    file.go = Place(text=version, line=line.number)


def _toolchain(file: ModFile, line: _Line) -> None:
    file.toolchain = Place(text=_exactly(file, line, 1)[0], line=line.number)


def _require(file: ModFile, line: _Line) -> None:
    path, version = _exactly(file, line, 2)
    indirect = line.comment == "indirect" or line.comment.startswith("indirect;")
    required = Required(
        path=_path(file, line, path), version=_version(file, line, version), line=line.number, indirect=indirect
    )
    file.requires.append(required)


def _replace(file: ModFile, line: _Line) -> None:
    words = line.words
    arrow = words.index("=>") if "=>" in words else 0
    left, right = words[:arrow], words[arrow + 1 :]
    if not 1 <= len(left) <= VERSIONED or not 1 <= len(right) <= VERSIONED:
        raise file.error("is not written `replace OLD [VERSION] => NEW [VERSION]`", line.number)
    local = _is_directory(right[0])
    if local == (len(right) == VERSIONED):
        rule = "a directory takes no version" if local else "a module needs a version, and a directory begins with ./"
        raise file.error(f"{right[0][:80]!r}: {rule}", line.number)
    file.replaces.append(
        Replaced(
            path=_path(file, line, left[0]),
            version=_version(file, line, left[1]) if len(left) == VERSIONED else "",
            new_path=right[0] if local else _path(file, line, right[0]),
            new_version="" if local else _version(file, line, right[1]),
            line=line.number,
        )
    )


def _exclude(file: ModFile, line: _Line) -> None:
    path, version = _exactly(file, line, 2)
    file.excludes.append((_path(file, line, path), _version(file, line, version)))


def _retract(file: ModFile, line: _Line) -> None:
    words = [word for word in line.words if word not in {"[", "]", ","}]
    if not 1 <= len(words) <= INTERVAL or not all(VERSION.fullmatch(word) for word in words):
        raise file.error("is not written `retract VERSION` or `retract [LOW, HIGH]`", line.number)


def _tool(file: ModFile, line: _Line) -> None:
    file.tools.append(Place(text=_path(file, line, _exactly(file, line, 1)[0]), line=line.number))


def _ignore(file: ModFile, line: _Line) -> None:
    file.ignores.append(Place(text=_exactly(file, line, 1)[0], line=line.number))


def _use(file: ModFile, line: _Line) -> None:
    file.uses.append(Place(text=_exactly(file, line, 1)[0], line=line.number))


def _godebug(file: ModFile, line: _Line) -> None:
    if not GODEBUG.fullmatch(_exactly(file, line, 1)[0]):
        raise file.error("is not written `godebug NAME=VALUE`", line.number)


_SHARED: dict[str, Callable[[ModFile, _Line], None]] = {
    "go": _go, "toolchain": _toolchain, "replace": _replace, "godebug": _godebug,
}  # fmt: skip
_MOD_READERS = _SHARED | {
    "module": _module, "require": _require, "exclude": _exclude, "retract": _retract, "tool": _tool, "ignore": _ignore,
}  # fmt: skip
_WORK_READERS = _SHARED | {"use": _use}


def _exactly(file: ModFile, line: _Line, count: int) -> Sequence[str]:
    if len(line.words) != count:
        raise file.error(f"has {len(line.words)} words where {count} must be", line.number)
    return line.words


def _path(file: ModFile, line: _Line, text: str) -> str:
    if not is_path(text):
        raise file.error(f"{text[:80]!r} is no path of a module", line.number)
    return text


def _version(file: ModFile, line: _Line, text: str) -> str:
    if not VERSION.fullmatch(text) and not QUERY.fullmatch(text):
        raise file.error(f"{text[:80]!r} is no version, such as v1.2.3", line.number)
    return text


def _is_directory(text: str) -> bool:
    return text in {".", ".."} or text.startswith(("./", "../", "/"))
