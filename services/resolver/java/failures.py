"""Why an install of Java packages failed, from the words of Qila's own programs around Maven's resolver.

The order of the rules matters: a full disk or a closed network also keeps a package from being found.
"""

from __future__ import annotations

import re

from services.resolver.model import FailureReason, InstallFailure, StepKind

MAX_DETAIL = 8 * 1024
MAX_PACKAGES = 20
# `timeout` ends with this, as do most supervisors that act on a deadline.
EXIT_TIMED_OUT = 124
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
    text = output[-MAX_DETAIL * 32 :].decode("utf-8", "replace")
    lines = [line for line in text.splitlines() if ERROR.match(line)]
    words = "\n".join(lines) or text.strip()
    reason = FailureReason.TIMED_OUT if exit_code == EXIT_TIMED_OUT else _reason(words)
    if reason is None:
        reason = FailureReason.NO_SOLUTION if step is StepKind.SOLVE else FailureReason.BUILD_FAILED
    shown = "\n".join(match["text"] for line in lines if (match := ERROR.match(line))) or words
    detail = shown or f"the installer ended with exit code {exit_code} and said nothing"
    return InstallFailure(
        reason=reason,
        detail=detail.encode()[:MAX_DETAIL].decode("utf-8", "ignore"),
        packages=_packages(shown) if lines else (),
        hints=tuple(_hints(shown, reason)),
    )


def _reason(text: str) -> FailureReason | None:
    return next((reason for reason, pattern in RULES if pattern.search(text)), None)


def _packages(text: str) -> tuple[str, ...]:
    """The first of them only where one was not found: the rest is the way to it."""
    found = dict.fromkeys(match["name"] for match in COORDINATE.finditer(text))
    return tuple(name for name in found if not name.startswith("qila:"))[:MAX_PACKAGES]


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
