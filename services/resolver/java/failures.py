"""Why an install of Java packages failed, from the words of Qila's own programs around Maven's resolver.

The order of the rules matters: a full disk or a closed network also keeps a package from being found.
"""

from __future__ import annotations

import re

from services.resolver.failure_words import detail_of, first, mentioned, reason_of, text_of, unexplained
from services.resolver.java.gradle_failures import explain_build
from services.resolver.model import FailureReason, InstallFailure, StepKind

ERROR = re.compile(r"error: (?P<kind>[a-z-]{1,20}): (?P<text>.*)")
COORDINATE = re.compile(
    r"(?<![\w.:/-])(?P<name>[A-Za-z_][\w.-]{0,199}:[A-Za-z_][\w.-]{0,199})(?::[A-Za-z0-9._+-]{1,100}){0,3}(?![\w/])"
)
SNAPSHOT = re.compile(r"-SNAPSHOT\b")
WITHOUT_VERSION = re.compile(r"'dependencies\.dependency\.version' for (?P<name>[\w.:-]{3,400}?):jar is missing")

OUT_OF_SPACE = re.compile(r"no space left on device|disk quota exceeded|\bENOSPC\b|\bEDQUOT\b", re.IGNORECASE)
POLICY = re.compile(r"(?:denied|blocked|refused) by (?:package )?policy|\bHTTP 451\b|policy:", re.IGNORECASE)
TIMED_OUT = re.compile(r"\btimed out\b|SocketTimeoutException", re.IGNORECASE)
NOT_FOUND = re.compile(r"error: not-found: |HTTP 404")
NO_SOLUTION = re.compile(r"error: (?:conflict|no-version|hash|pom): ")
NETWORK = re.compile(r"error: (?:refused|transfer): |ConnectException|Connection refused|UnknownHostException")

RULES = (
    (FailureReason.OUT_OF_SPACE, OUT_OF_SPACE),
    (FailureReason.POLICY_DENIED, POLICY),
    (FailureReason.TIMED_OUT, TIMED_OUT),
    (FailureReason.NOT_FOUND, NOT_FOUND),
    (FailureReason.NO_SOLUTION, NO_SOLUTION),
    (FailureReason.NETWORK_DENIED, NETWORK),
)


def explain_failure(step: StepKind, exit_code: int, output: bytes) -> InstallFailure:
    """Name the reason, keep the programs' words, list the packages that they name."""
    text = text_of(output)
    of_build = explain_build(text, exit_code)
    if of_build is not None:
        return of_build
    errors = [match for line in text.splitlines() if (match := ERROR.match(line))]
    words = "\n".join(match[0] for match in errors) or text.strip()
    shown = "\n".join(match["text"] for match in errors) or words
    reason = reason_of(words, exit_code, RULES, unexplained(step))
    return InstallFailure(
        reason=reason,
        detail=detail_of(shown, exit_code),
        packages=_packages(shown) if errors else (),
        hints=tuple(_hints(shown, reason)),
    )


def _packages(text: str) -> tuple[str, ...]:
    """The first of them only where one was not found: the rest is the way to it."""
    return first(name for name in mentioned(text, (COORDINATE,)) if not name.startswith("qila:"))


def _hints(text: str, reason: FailureReason) -> list[str]:
    hints = []
    if SNAPSHOT.search(text):
        hints.append("Maven Central has releases only: name one instead of -SNAPSHOT")
    hints += [
        f"{match['name']}: give it a <version>, or the BOM that manages it" for match in WITHOUT_VERSION.finditer(text)
    ]
    if reason is FailureReason.NOT_FOUND and not hints:
        hints.append("packages come from Maven Central alone: other repositories are not looked at")
    return hints
