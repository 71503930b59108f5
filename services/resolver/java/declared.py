"""What a manifest of any kind declares, in the words of a POM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.resolver.java.coordinates import Coordinate
    from services.resolver.model import Notice

# The scopes of a program, and the one that counts for tests alone.
COMPILE, RUNTIME, PROVIDED, TEST, IMPORT, SYSTEM = "compile", "runtime", "provided", "test", "import", "system"


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """One dependency, or one version that is managed; `exclusions` are pairs of group and artifact, `*` for any."""

    coordinate: Coordinate
    path: str
    line: int
    scope: str = COMPILE
    optional: bool = False
    exclusions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PomFile:
    """A POM of the workspace as it is staged: its id (`group:artifact:version`) and its bytes."""

    id: str
    content: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """What a manifest says.

    `poms` is what the solve starts from, the program's own first. `highest`: of several versions the highest is taken.
    `local` holds directories of other modules that are needed. `pins` are versions that a lock beside the manifest
    fixes.
    """

    paths: tuple[str, ...]
    directory: str
    dependencies: tuple[Declaration, ...]
    poms: tuple[PomFile, ...]
    highest: bool = False
    local: tuple[str, ...] = ()
    main_class: str = ""
    preview: bool = False
    source_directory: str = ""
    test_directory: str = ""
    notices: tuple[Notice, ...] = ()
    pins: Mapping[str, str] = field(default_factory=dict)
