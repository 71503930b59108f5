"""Files that are made to be read for a long time: each is read once, or refused with its line."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from services.resolver.errors import ManifestError
from services.resolver.go.mod_file import read_go_mod
from services.resolver.java.jbang import read_directives
from services.resolver.java.maven import MavenWorkspace

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.timeout(60)
SECONDS = 5.0
HALF_A_MEGABYTE = 1 << 19


def properties_that_multiply() -> bytes:
    lines = "".join(f"<p{number}>{f'${{p{number + 1}}}' * 200}</p{number}>" for number in range(1_200))
    dependency = "<dependency><groupId>${p0}</groupId><artifactId>a</artifactId><version>${p1}</version></dependency>"
    own = "<artifactId>a</artifactId><groupId>g</groupId><version>1</version>"
    text = f"<project>{own}<properties>{lines}</properties><dependencies>{dependency * 2_000}</dependencies></project>"
    return text.encode()


READERS: dict[str, Callable[[], object]] = {
    "a go.mod with a text that does not end": lambda: read_go_mod(b'module x\n"' + b'\\"' * HALF_A_MEGABYTE, "go.mod"),
    "a line of JBang with much room and a long end": lambda: read_directives(
        "Main.java", b"//DEPS " + b" " * HALF_A_MEGABYTE + b"x" * 3_000, 21
    ),
    "a POM whose properties multiply": lambda: MavenWorkspace({"pom.xml": properties_that_multiply()}, 21).read(
        "pom.xml"
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_reading_takes_no_longer_than_the_file_is_long(name: str) -> None:
    begin = time.process_time()
    with suppress(ManifestError):
        READERS[name]()
    assert time.process_time() - begin < SECONDS


def test_sources_that_jbang_names_are_bounded() -> None:
    with pytest.raises(ManifestError, match="more than 100") as caught:
        read_directives("Main.java", b"//SOURCES a*.java\n" * 101, 21)
    assert caught.value.line == 101
