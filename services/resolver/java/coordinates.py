"""Names of artefacts in Maven's repositories, and how a requirement writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

# What the solve chooses by itself: the newest release that is no trial.
NEWEST = "RELEASE"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
RANGE = re.compile(r"[\[(][A-Za-z0-9_.+,\[\]() -]{0,200}[\])]")
CLASSIFIER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
# Of a written requirement: group and artifact, and behind them version and classifier.
PART_COUNTS = (2, 3, 4)
EXTENSION = re.compile(r"[A-Za-z0-9]{1,20}(?:\.[A-Za-z0-9]{1,10})?")


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Coordinate:
    """An artefact that is asked for; the version is empty where something else decides it."""

    group: str
    artifact: str
    version: str = ""
    classifier: str = ""
    extension: str = "jar"

    @property
    def name(self) -> str:
        """`group:artifact`."""
        return f"{self.group}:{self.artifact}"

    @property
    def specifier(self) -> str:
        """As Gradle writes it: `group:artifact:version:classifier@extension`, as far as there is something to say."""
        text = self.name
        if self.version or self.classifier:
            text += f":{self.version}"
        if self.classifier:
            text += f":{self.classifier}"
        return text if self.extension == "jar" else f"{text}@{self.extension}"


def parse_coordinate(text: str) -> Coordinate | None:
    """Read `group:artifact[:version[:classifier]][@extension]`; None for what is not written so."""
    body, _, extension = text.strip().partition("@")
    parts = [part.strip() for part in body.split(":")]
    if len(parts) not in PART_COUNTS:
        return None
    group, artifact, version, classifier = (*parts, "", "")[:4]
    found = Coordinate(
        group=group, artifact=artifact, version=version, classifier=classifier, extension=extension or "jar"
    )
    return found if is_valid(found) else None


def is_valid(coordinate: Coordinate) -> bool:
    """Whether every part is one that a repository can hold, or a version that a solve can choose."""
    return (
        bool(NAME.fullmatch(coordinate.group) and NAME.fullmatch(coordinate.artifact))
        and (not coordinate.version or is_version(coordinate.version))
        and (not coordinate.classifier or bool(CLASSIFIER.fullmatch(coordinate.classifier)))
        and bool(EXTENSION.fullmatch(coordinate.extension))
    )


def is_version(text: str) -> bool:
    """Whether a text is a version or a range of versions."""
    return bool(VERSION.fullmatch(text) or RANGE.fullmatch(text))


def is_open(version: str) -> bool:
    """Whether a version leaves a choice."""
    return version in {"RELEASE", "LATEST"} or version[:1] in {"[", "("}


def purl_of(coordinate: Coordinate) -> str:
    """The purl; type and classifier are said where they are not those of a plain jar."""
    qualifiers = []
    if coordinate.classifier:
        qualifiers.append(f"classifier={quote(coordinate.classifier, safe='')}")
    if coordinate.extension != "jar":
        qualifiers.append(f"type={quote(coordinate.extension, safe='')}")
    place = f"{quote(coordinate.group, safe='')}/{quote(coordinate.artifact, safe='')}"
    mark = f"?{'&'.join(qualifiers)}" if qualifiers else ""
    return f"pkg:maven/{place}@{quote(coordinate.version, safe='')}{mark}"


def order_key(coordinate: Coordinate) -> tuple[str, str, str]:
    """What tells two artefacts of one solve apart, whatever their version."""
    return coordinate.name, coordinate.classifier, coordinate.extension
