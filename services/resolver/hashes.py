"""Hashes as lockfiles write them, in one form: algorithm and hexadecimal digits."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

HEXADECIMAL = re.compile(r"(?P<algorithm>[a-z0-9]{2,12}):(?P<digits>[0-9a-f]{32,128})")
# Subresource Integrity, as npm, yarn and pnpm write it.
INTEGRITY = re.compile(r"(?P<algorithm>sha(?:1|256|384|512))-(?P<digits>[A-Za-z0-9+/]{20,100}={0,2})")
# Digits of each algorithm; others are not told apart from mistakes.
LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Hash:
    """One hash: "sha256" and its digits in lower case."""

    algorithm: str
    digits: str


def parse_hash(text: str) -> Hash | None:
    """A hash in either notation; None for what is none of a common algorithm."""
    found = HEXADECIMAL.fullmatch(text)
    if found:
        return _checked(found["algorithm"], found["digits"])
    found = INTEGRITY.fullmatch(text)
    if not found:
        return None
    try:
        return _checked(found["algorithm"], base64.b64decode(found["digits"], validate=True).hex())
    except binascii.Error:
        return None


def _checked(algorithm: str, digits: str) -> Hash | None:
    return Hash(algorithm=algorithm, digits=digits) if LENGTHS.get(algorithm) == len(digits) else None
