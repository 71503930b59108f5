"""Why uv failed, from its own words.

The order of the rules matters: a full disk or a closed network also makes builds fail, and names the true cause.
"""

from __future__ import annotations

import re

from services.resolver.failure_words import detail_of, first, mentioned, reason_of, text_of, unexplained
from services.resolver.model import FailureReason, InstallFailure, StepKind
from services.resolver.python.names import missing_package

NO_WHEEL = (
    "has no wheel for this Python, and the operator does not allow that packages run their own code when they are "
    "installed; choose another release or another package"
)
OTHER_MACHINE = (
    "has no file with a hash of the lock that fits this sandbox: the lock was made on another type of machine or for "
    "another Python, or the file was replaced; make the lock again here, and compare the two"
)
# A name begins where a word begins and has an end: else a long word is read again from each of its characters.
NAME = r"(?<![A-Za-z0-9._-])[A-Za-z0-9](?:[A-Za-z0-9._-]{0,212}[A-Za-z0-9])?"

OUT_OF_SPACE = re.compile(r"No space left on device|os error 28|Disk quota exceeded|os error 122")
POLICY = re.compile(r"(denied|blocked|refused) by (package )?policy|\b451\b", re.IGNORECASE)
TIMED_OUT = re.compile(r"operation timed out|request timed out|Failed to download .{0,500}timed? ?out", re.IGNORECASE)
NETWORK = re.compile(
    r"Connection refused|dns error|failed to lookup address|tcp connect error|network (?:is )?unreachable"
    r"|network was disabled|client error \(Connect\)|connection (?:closed|reset)"
    r"|HTTP status (?:client|server) error \((?:403|407|429|5\d\d)",
    re.IGNORECASE,
)
BUILD = re.compile(
    r"Failed to build|build backend returned an error|Call to `[^`]{1,1000}` failed|Failed to resolve requirements from"
    r"|metadata-generation-failed|subprocess-exited-with-error"
)
NOT_FOUND = re.compile(rf"(?P<name>{NAME}) was not found in the package registry")
NO_SOLUTION = re.compile(
    r"No solution found|requirements are unsatisfiable|depends on Python|no wheels with a matching"
)
# uv's words about its own interpreter, not about the install.
PREAMBLE = re.compile(r"warning: .*|Using .*interpreter.*|Resolved \d+ packages?.*|Prepared \d+ packages?.*")

# With --no-build: a package that has nothing but its source.
NO_BUILD = re.compile(
    rf"(?:of (?P<one>{NAME}) have no usable wheels|Package `(?P<two>{NAME})` can't be installed because it is marked as"
    rf"|Wheels are required for `(?P<three>{NAME})` because building)"
)
# The one file of a lock was not the file that this machine would get.
OTHER_FILE = re.compile(rf"Hash mismatch for `(?P<name>{NAME})==")
RULES = (
    (FailureReason.OUT_OF_SPACE, OUT_OF_SPACE),
    (FailureReason.POLICY_DENIED, POLICY),
    (FailureReason.TIMED_OUT, TIMED_OUT),
    (FailureReason.NOT_FOUND, NOT_FOUND),
    (FailureReason.POLICY_DENIED, NO_BUILD),
    (FailureReason.NO_SOLUTION, OTHER_FILE),
    (FailureReason.BUILD_FAILED, BUILD),
    (FailureReason.NETWORK_DENIED, NETWORK),
    (FailureReason.NO_SOLUTION, NO_SOLUTION),
)
PACKAGE_MENTIONS = (
    NOT_FOUND,
    re.compile(rf"Failed to (?:build|download|fetch)(?: and build)?:? `(?P<name>{NAME})[=@` ]"),
    OTHER_FILE,
    re.compile(rf"there is no version of (?P<name>{NAME})[=<>!~]"),
    re.compile(rf"Because (?:only )?(?P<name>{NAME})[=<>!~ ]"),
    re.compile(rf"(?:and|depends on|require) (?P<name>(?!Python\b|your\b|you\b|we\b|all\b){NAME})[=<>!~]"),
    re.compile(rf"(?P<name>{NAME})[=<>!~]{{1,3}}[0-9.]{{1,200}} depends on"),
    re.compile(rf"/simple/(?P<name>{NAME})/"),
)


def explain_failure(step: StepKind, exit_code: int, output: bytes) -> InstallFailure:
    """Name the reason, keep the installer's words, list the packages that it names."""
    words = _own_words(text_of(output))
    reason = reason_of(words, exit_code, RULES, unexplained(step))
    return InstallFailure(
        reason=reason,
        detail=detail_of(words, exit_code),
        packages=first(mentioned(words, PACKAGE_MENTIONS)),
        hints=_hints(words, reason),
    )


def _hints(text: str, reason: FailureReason) -> tuple[str, ...]:
    """What to do about names that do not exist, files that are not the lock's, and builds where those are barred."""
    if reason is FailureReason.NOT_FOUND:
        names = dict.fromkeys(match["name"] for match in NOT_FOUND.finditer(text))
        return first(missing_package(name) for name in names)
    if reason is FailureReason.NO_SOLUTION and (other := OTHER_FILE.search(text)):
        return (f"{other['name']} {OTHER_MACHINE}",)
    unbuilt = (match["one"] or match["two"] or match["three"] for match in NO_BUILD.finditer(text))
    return first(f"{name} {NO_WHEEL}" for name in unbuilt)


def _own_words(text: str) -> str:
    """The message of the failure: from the first `error:` line on, else all but the preamble."""
    lines = text.splitlines()
    start = next((index for index, line in enumerate(lines) if re.match(r"(error:|\s*[\u00d7x] )", line)), None)
    kept = lines[start:] if start is not None else [line for line in lines if not PREAMBLE.fullmatch(line)]
    return "\n".join(kept).strip()
