"""Why an install of Go modules failed, from the words of the go command.

The order of the rules matters: a full disk or a closed network also makes look-ups fail, and names the true cause.
"""

from __future__ import annotations

import re

from services.resolver.failure_words import detail_of, first, mentioned, reason_of, text_of
from services.resolver.go.names import module_guess
from services.resolver.model import FailureReason, InstallFailure, StepKind

# Lines that tell of progress, and who imports what; the package stands in the next line too.
CHATTER = re.compile(
    r"go: (?:downloading|finding module|found|added|upgraded|to add module)\b.*|go: program imports|\+ \S+ v\S+"
    r"|Installing \d+ modules"
)
PATH = r"(?P<name>[A-Za-z0-9][A-Za-z0-9._~-]{0,100}\.[A-Za-z0-9._~/-]{1,300})"

OUT_OF_SPACE = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
POLICY = re.compile(r"(?:denied|blocked|refused) by (?:package )?policy|package rules?|\b451\b", re.IGNORECASE)
HASHES = re.compile(r"SECURITY ERROR|checksum mismatch|^lock: ", re.MULTILINE)
TOOLCHAIN = re.compile(r"requires go >= ?\S+|go\.mod requires go|toolchain not available|running go \S+; GOTOOLCHAIN")
NO_SOLUTION = re.compile(
    r"invalid version|version \"[^\"]{0,200}\" invalid|unknown revision|no matching versions"
    r"|but does not contain package|ambiguous import|module declares its path as|excluded|errors parsing go\.mod"
    r"|replacement directory|inconsistent dependencies|malformed module path|import cycle not allowed"
    r"|is not a package path"
)
TIMED_OUT = re.compile(r"i/o timeout|deadline exceeded|TLS handshake timeout|context canceled", re.IGNORECASE)
# A registry that refuses one module (403) does not hand it out: for a program, it is not there.
NOT_FOUND = re.compile(
    r"\b(?:404 Not Found|410 Gone)|The registry answered 40[34]"
    r"|cannot find module providing package|is not in std\b|module lookup disabled"
    r"|unrecognized import path|This module version is not available|no such host|has no module\b"
)
NETWORK = re.compile(
    r"connection refused|connection reset|network is unreachable|no route to host|\b(?:401|403|407|429|50\d) [A-Z]"
    r"|dial tcp|unexpected EOF"
)

RULES = (
    (FailureReason.OUT_OF_SPACE, OUT_OF_SPACE),
    (FailureReason.POLICY_DENIED, POLICY),
    (FailureReason.NO_SOLUTION, HASHES),
    (FailureReason.NOT_FOUND, NOT_FOUND),
    (FailureReason.NO_SOLUTION, TOOLCHAIN),
    (FailureReason.NO_SOLUTION, NO_SOLUTION),
    (FailureReason.TIMED_OUT, TIMED_OUT),
    (FailureReason.NETWORK_DENIED, NETWORK),
)
PACKAGE_MENTIONS = (
    re.compile(rf"cannot find module providing package {PATH}"),
    re.compile(rf"module {PATH}: reading"),
    re.compile(rf"(?:^|[\s:]){PATH}@v[^\s:]{{1,200}}: (?:reading|invalid version|verifying|Get)", re.MULTILINE),
    re.compile(rf"verifying (?:module )?{PATH}@"),
    re.compile(rf"^lock: {PATH} ", re.MULTILINE),
    re.compile(rf"does not contain package {PATH}"),
    re.compile(rf"^go: {PATH}@\S{{1,200}}(?: requires|: )", re.MULTILINE),
    re.compile(rf"unrecognized import path \"{PATH}\""),
)
TOOLCHAIN_HINT = (
    "a module needs a newer Go than this sandbox has: ask for an older version of it, in go.mod's `require`, or use an"
    " image with a newer Go"
)
HASH_HINT = (
    "go.sum or the lock has another hash than what the registry sent: if the lock is right, do not use the module; if"
    " it is not, remove its lines"
)


def explain_failure(step: StepKind, exit_code: int, output: bytes) -> InstallFailure:
    """Name the reason, keep the go command's words, list the modules that it names.

    What no rule knows is `no_solution`, for no module's own code runs in an install.
    """
    del step
    words = "\n".join(line for line in text_of(output).splitlines() if not CHATTER.fullmatch(line)).strip()
    return InstallFailure(
        reason=reason_of(words, exit_code, RULES, FailureReason.NO_SOLUTION),
        detail=detail_of(words, exit_code),
        packages=first(module_guess(name.rstrip(".:")) for name in mentioned(words, PACKAGE_MENTIONS)),
        hints=_hints(words),
    )


def _hints(words: str) -> tuple[str, ...]:
    found = [(HASHES, HASH_HINT), (TOOLCHAIN, TOOLCHAIN_HINT)]
    return tuple(hint for pattern, hint in found if pattern.search(words))
