"""Why the sandbox's Gradle could not say what a build declares, in its own words and with the build's own lines."""

from __future__ import annotations

import re

from services.resolver.failure_words import detail_of, reason_of
from services.resolver.java.gradle_dependencies import FORMS
from services.resolver.java.gradle_question import BUILD
from services.resolver.model import FailureReason, InstallFailure

FAILED = re.compile(r"^FAILURE: Build failed with an exception\.", re.MULTILINE)
# What it says in front of the advice to people who have its command line.
SAID = re.compile(
    r"^FAILURE: Build failed with an exception\.\s*(?P<words>.*?)(?=^\* Try:|\Z)", re.MULTILINE | re.DOTALL
)
STAGE = re.compile(rf"/sandbox/\.qila/stage/[^\s/'\"]{{1,200}}/{BUILD}(?:/|(?=['\"\s]|$))")
WHERE = re.compile(
    r"\* Where:\s*\w{1,20} file '(?P<path>[^'\n]{1,500})' line: (?P<line>\d{1,7})\s*\* What went wrong:\s*",
    re.MULTILINE,
)
SCRIPT = re.compile(r"\* Where:\s*Script '(?P<path>[^'\n]{1,500})' line: (?P<line>\d{1,7})\s*\* What went wrong:\s*")
WRONG = re.compile(r"\* What went wrong:\s*")

OUT_OF_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
POLICY = re.compile(r"status code 451|denied by policy", re.IGNORECASE)
NOT_FOUND = re.compile(r"Plugin \[id: [^\n]{1,300}was not found|Could not find [\w.-]{1,200}:[\w.-]{1,200}:")
NETWORK = re.compile(r"status code 403|Connection refused|UnknownHost|Network is unreachable|No route to host")
RULES = (
    (FailureReason.OUT_OF_SPACE, OUT_OF_SPACE),
    (FailureReason.POLICY_DENIED, POLICY),
    (FailureReason.NOT_FOUND, NOT_FOUND),
    (FailureReason.NETWORK_DENIED, NETWORK),
)


def explain_build(text: str, exit_code: int) -> InstallFailure | None:
    """The failure of a build; None if this is not the output of one."""
    if not FAILED.search(text):
        return None
    match = SAID.search(text)
    words = STAGE.sub("", match["words"] if match else text)
    for pattern in (WHERE, SCRIPT):
        words = pattern.sub(lambda found: f"{found['path']}:{found['line']}: ", words)
    words = WRONG.sub("", words).strip()
    hints = [f"this Gradle is old, and asked only about what cannot be read without running a build: {FORMS}"]
    if "Plugin [id:" in words:
        hints.insert(0, "plugins come from Maven Central alone: leave out what the program's dependencies do not need")
    return InstallFailure(
        reason=reason_of(words, exit_code, RULES, FailureReason.BUILD_FAILED),
        detail=detail_of(words, exit_code),
        hints=tuple(hints),
    )
