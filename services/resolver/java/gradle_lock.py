"""gradle.lockfile: the versions that Gradle chose, one artefact a line."""

from __future__ import annotations

from services.resolver.errors import LockError
from services.resolver.java.coordinates import Coordinate, parse_coordinate

NAME = "gradle.lockfile"
MAX_LINES = 50_000
EMPTY = "empty"
TEST_PREFIX = "test"


def reads_gradle_lock(name: str, content: bytes) -> bool:
    """Whether this is Gradle's lock, by its name or by its first words."""
    return name.rpartition("/")[2] == NAME or content.startswith(b"# This is a Gradle generated file for dependency")


def read_gradle_lock(name: str, content: bytes, *, tests: bool = True) -> dict[str, tuple[Coordinate, int]]:
    """Each artefact and its line by `group:artifact`; without `tests`, what only tests need is left out.

    Raises LockError with the line.
    """
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise LockError(name=name, line=content[: error.start].count(b"\n") + 1, reason="is not UTF-8") from error
    if len(lines) > MAX_LINES:
        raise LockError(name=name, line=MAX_LINES, reason=f"has more than {MAX_LINES} lines")
    found: dict[str, tuple[Coordinate, int]] = {}
    for number, line in enumerate(lines, start=1):
        text, _, configurations = line.strip().partition("=")
        if not text or text.startswith("#") or text == EMPTY:
            continue
        coordinate = parse_coordinate(text)
        if coordinate is None or not coordinate.version:
            reason = f"{text[:100]!r} is not written group:artifact:version=configurations"
            raise LockError(name=name, line=number, reason=reason)
        if tests or _is_of_program(configurations):
            found[coordinate.name] = (coordinate, number)
    return found


def _is_of_program(configurations: str) -> bool:
    names = [item for item in configurations.split(",") if item]
    return not names or any(not item.startswith(TEST_PREFIX) for item in names)
