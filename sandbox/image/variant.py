"""Images of this recipe with other toolchains: what an operator gives in the place of the recipe's own."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

VARIANT_LENGTH = 8
MAX_PINS_BYTES = 1 << 20
_PIN = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[0-9][0-9a-z.]*)(?: --hash=sha256:[0-9a-f]{64})+")
_RELEASE = re.compile(r"[1-9][0-9]?")


class VariantError(Exception):
    """What the operator gave cannot be built from; the text is the line that the operator sees."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """`pins` are hash-locked requirements by distribution; `java` is the release of a JDK of Debian's, or empty."""

    pins: Mapping[str, str] = field(default_factory=dict)
    java: str = ""

    @property
    def wheels(self) -> str:
        """Names the pins, behind a tag; empty if there are none."""
        return _suffix("\n".join(self.pins[name] for name in sorted(self.pins)))

    @property
    def suffix(self) -> str:
        """Names all of it, behind a tag; empty for the recipe as it is."""
        return _suffix(self.wheels + (f"java {self.java}" if self.java else ""))

    def requirements(self, own: str) -> str:
        """The recipe's own requirements with the pins in their places."""
        return "".join(f"{line}\n" for line in {**read_pins(own), **self.pins}.values())


def read_variant(own: str, path: Path | None, java: str) -> Variant:
    """What is asked for beside the recipe's own requirements. VariantError."""
    if java and not _RELEASE.fullmatch(java):
        raise VariantError(f"--java {java}: must be a release such as 25; Debian's packages of the base have it or not")
    if path is None:
        return Variant(java=java)
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_PINS_BYTES + 1)
        pins = read_pins(content.decode())
    except (OSError, UnicodeDecodeError, VariantError) as error:
        raise VariantError(f"--with {path}: {error}") from error
    known = read_pins(own)
    strange = sorted(pins.keys() - known.keys())
    if strange or not pins:
        what = f"{strange[0]} is no toolchain of the recipe" if strange else "it pins nothing"
        raise VariantError(f"--with {path}: {what}; it may pin {', '.join(sorted(known))}")
    return Variant(pins=pins, java=java)


def read_pins(text: str) -> dict[str, str]:
    """Requirements by distribution, each on one line, as pip reads them. VariantError on all but pins with hashes."""
    if len(text) > MAX_PINS_BYTES:
        raise VariantError(f"it is above {MAX_PINS_BYTES} bytes")
    pins: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        words = " ".join(line.partition(" #")[0].split())
        if not words or words.startswith("#"):
            continue
        found = _PIN.fullmatch(words)
        if found is None:
            raise VariantError(f"{words[:60]!r} is not NAME==VERSION with --hash=sha256:… for each of its wheels")
        if found["name"] in pins:
            raise VariantError(f"{found['name']} is pinned twice")
        pins[found["name"]] = words
    return pins


def _suffix(text: str) -> str:
    return f"-{hashlib.sha256(text.encode()).hexdigest()[:VARIANT_LENGTH]}" if text else ""
