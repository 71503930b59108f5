"""Why an install of Node packages failed, from the words of npm and of Qila's own programs around it.

The order of the rules matters: a full disk or a closed network also makes builds fail, and names the true cause.
"""

from __future__ import annotations

import re

from services.resolver.failure_words import detail_of, first, mentioned, reason_of, text_of, unexplained
from services.resolver.model import FailureReason, InstallFailure, StepKind

PACKAGE = r"(?P<name>(?:@[A-Za-z0-9._~-]{1,214}/)?[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,213})"
# What Qila's own programs and npm put before the words of a failure.
MARK = re.compile(r"(?:npm error|npm ERR!|lock:)(?: |\Z)")
# The general advice that npm adds, for a person at a terminal.
ADVICE = re.compile(
    r"(?:npm error|npm ERR!)(?:\s*\Z| (?:404\s*\Z|404 Note that you can|404 tarball, folder|notarget In most cases"
    r"|403 In most cases|Log files were not|A complete log of|Fix the upstream dependency|this command with --force"
    r"|to accept an incorrect|enoent This is related|enoent\s*\Z))"
)
USAGE = re.compile(r"npm error (?:Clean install a project|Usage:)")

OUT_OF_SPACE = re.compile(r"\bENOSPC\b|\bEDQUOT\b|no space left on device|disk quota exceeded", re.IGNORECASE)
POLICY = re.compile(r"(denied|blocked|refused) by (package )?policy|\b451\b", re.IGNORECASE)
TIMED_OUT = re.compile(r"\bETIMEDOUT\b|\bESOCKETTIMEDOUT\b|\bERR_SOCKET_TIMEOUT\b|timed? ?out\b", re.IGNORECASE)
# npm's codes stand in a line of their own; what a build script prints is no line of that kind.
SCRIPT = re.compile(r"npm error command (?:failed|sh -c)|code ELIFECYCLE")
NOT_FOUND = re.compile(r"npm error code E404|lock: \S+ HTTP 404")
HASHES = re.compile(r"npm error code EINTEGRITY|lock: \S+ the lock says")
NO_SOLUTION = re.compile(
    r"npm error code (?:ETARGET|ENOVERSIONS|ERESOLVE|EUSAGE|EBADENGINE|EBADPLATFORM|EINVALIDPACKAGENAME|EINVALIDTAGNAME"
    r"|EUNSUPPORTEDPROTOCOL|EOVERRIDE)|npm has no such version|npm error Invalid (?:tag|package) name"
)
NETWORK = re.compile(
    r"\b(?:ECONNREFUSED|ECONNRESET|EAI_AGAIN|ENOTFOUND|EHOSTUNREACH|ENETUNREACH|EPIPE)\b"
    r"|code E(?:403|401|407|429|5\d\d)\b"
    r"|syscall spawn git|HTTP (?:401|403|407|429|5\d\d)|the registry does not answer"
)

RULES = (
    (FailureReason.OUT_OF_SPACE, OUT_OF_SPACE),
    (FailureReason.POLICY_DENIED, POLICY),
    # Only this registry's packages can be had: before what a build script may have printed.
    (FailureReason.NOT_FOUND, NOT_FOUND),
    (FailureReason.NO_SOLUTION, HASHES),
    (FailureReason.NO_SOLUTION, NO_SOLUTION),
    (FailureReason.BUILD_FAILED, SCRIPT),
    (FailureReason.TIMED_OUT, TIMED_OUT),
    (FailureReason.NETWORK_DENIED, NETWORK),
)
PACKAGE_MENTIONS = (
    re.compile(rf"The requested resource '{PACKAGE}@"),
    re.compile(rf"No matching version found for {PACKAGE}@"),
    re.compile(rf"lock: {PACKAGE}(?:@[^:\s]*)?:"),
    re.compile(rf"/npm/{PACKAGE}(?:\s|\Z|/-/)", re.MULTILINE),
    re.compile(rf"(?:Missing:|Invalid: lock file's) {PACKAGE}@"),
    re.compile(rf"^npm error {{1,20}}(?:peer )?{PACKAGE}@\"", re.MULTILINE),
    re.compile(rf"^npm error Found: {PACKAGE}@", re.MULTILINE),
    re.compile(rf"^npm error path \S*/node_modules/{PACKAGE}$", re.MULTILINE),
    re.compile(rf"Unsupported (?:engine|platform) for {PACKAGE}@"),
)


def explain_failure(step: StepKind, exit_code: int, output: bytes) -> InstallFailure:
    """Name the reason, keep the installer's words, list the packages that it names."""
    words = _own_words(text_of(output))
    return InstallFailure(
        reason=reason_of(words, exit_code, RULES, unexplained(step)),
        detail=detail_of(words, exit_code),
        packages=first(mentioned(words, PACKAGE_MENTIONS)),
    )


def _own_words(text: str) -> str:
    """The lines of the failure, without npm's advice; all lines if none is marked as such."""
    lines = text.splitlines()
    kept = []
    for line in lines:
        if USAGE.match(line):
            break
        if MARK.match(line) and not ADVICE.match(line):
            kept.append(line)
    return "\n".join(kept or lines).strip()
