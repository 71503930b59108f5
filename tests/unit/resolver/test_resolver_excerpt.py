"""What a scan leaves unread holds no import."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.resolver.python.excerpt import import_part
from services.resolver.python.scan import scan_source

LIBRARY = Path(os.__file__).parent
PYTHON = (3, 13)


def test_imports_of_the_standard_library_are_those_of_whole_files() -> None:
    cut = 0
    for path in sorted([*LIBRARY.glob("*.py"), *LIBRARY.glob("asyncio/*.py")]):
        content = path.read_bytes()
        assert scan_source(content, PYTHON, whole=False).imports == scan_source(content, PYTHON).imports, path
        cut += len(import_part(content)) < len(content) / 2
    assert cut > 30


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"import a\nx = 1\n", b"import a\n"),
        (b"x = 1\ny = 2\n", b""),
        (b"from a import (\n    b,\n)\nx = 1\n", b"from a import (\n    b,\n)\n"),
        (b"def f():\n    import a\n\n    return a\n\n\nx = f()\n", b"def f():\n    import a\n\n    return a\n\n\n"),
        (b"try:\n    import a\nexcept X:\n    a = 1\nelse_ = 2\n", b"try:\n    import a\nexcept X:\n    a = 1\n"),
        (b"x = 1\nimport a", b"x = 1\nimport a"),
    ],
)
def test_part_ends_before_the_next_statement(content: bytes, part: bytes) -> None:
    assert import_part(content) == part


@pytest.mark.parametrize(
    "content",
    [
        b'import a\n"""\nimport words\nof a text\n"""\n',
        b"x = '''\nimport words\nof a text\n'''; import a\n",
        b"import a, \\\nb\n",
        b"import a, \\\r\nb\r\n",
        b"from a import (\nb,\nc)\n",
    ],
)
def test_what_was_cut_in_its_middle_is_read_as_a_whole(content: bytes) -> None:
    assert scan_source(content, PYTHON, whole=False).imports == scan_source(content, PYTHON).imports
