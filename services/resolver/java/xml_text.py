"""XML of strangers as a tree with lines: bounded, and without anything that leads out of the text."""

from __future__ import annotations

from dataclasses import dataclass, field

# Without a document type there are no entities: it is refused before anything in it is read.
from xml.parsers import expat

from services.resolver.errors import ManifestError

MAX_DEPTH = 64
MAX_ELEMENTS = 100_000
MAX_TEXT = 64 * 1024


@dataclass(kw_only=True, slots=True)
class Element:
    """One element: its name without a namespace, its text without what is around it, and where it begins."""

    name: str
    line: int
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def child(self, name: str) -> Element | None:
        """The first child of a name."""
        return next((item for item in self.children if item.name == name), None)

    def all(self, *names: str) -> list[Element]:
        """The elements at the end of a path of names."""
        found = [self]
        for name in names:
            found = [item for element in found for item in element.children if item.name == name]
        return found

    def value(self, *names: str) -> str:
        """The text at the end of a path of names; empty if there is none."""
        found = self.all(*names)
        return found[0].text if found else ""


def parse_xml(path: str, content: bytes) -> Element:
    """Read a document; raises ManifestError with the line."""
    return _Reader(path).read(content)


class _Reader:
    def __init__(self, path: str) -> None:
        self._path = path
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._refuse_document_type
        self._open: list[Element] = []
        self._root: Element | None = None
        self._count = 0

    def read(self, content: bytes) -> Element:
        try:
            self._parser.Parse(content, True)
        except expat.ExpatError as error:
            reason = f"is not XML: {expat.errors.messages.get(error.code, 'unknown error')}"
            raise ManifestError(path=self._path, reason=reason, line=error.lineno, column=error.offset + 1) from error
        except (LookupError, ValueError) as error:
            raise ManifestError(path=self._path, reason="is in an unknown encoding", line=1) from error
        if self._root is None:
            raise self._error("is empty")
        return self._root

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        del attributes
        self._count += 1
        if len(self._open) >= MAX_DEPTH or self._count > MAX_ELEMENTS:
            raise self._error(f"has more than {MAX_ELEMENTS} elements, or elements more than {MAX_DEPTH} deep")
        element = Element(name=name.rpartition(" ")[2], line=self._parser.CurrentLineNumber)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self._root = element
        self._open.append(element)

    def _end(self, name: str) -> None:
        del name
        element = self._open.pop()
        element.text = element.text.strip()

    def _characters(self, text: str) -> None:
        element = self._open[-1]
        if len(element.text) + len(text) <= MAX_TEXT:
            element.text += text

    def _refuse_document_type(self, *details: object) -> None:
        del details
        raise self._error("has a document type (<!DOCTYPE>), in which entities are declared: remove it")

    def _error(self, reason: str) -> ManifestError:
        return ManifestError(path=self._path, reason=reason, line=self._parser.CurrentLineNumber)
