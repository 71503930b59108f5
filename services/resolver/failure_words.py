"""From the words of an installer to why it failed: what is the same for every installer.

The order of the rules matters: a full disk or a closed network makes other things fail too, and names the true cause.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from services.resolver.model import FailureReason, StepKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from services.resolver.model import InstallFailure

# What is read of an installer's output, and what is kept of its words, in bytes.
MAX_OUTPUT = 256 * 1024
MAX_DETAIL = 8 * 1024
MAX_PACKAGES = 20
# `timeout` ends with this, as do most supervisors that act on a deadline.
EXIT_TIMED_OUT = 124
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

Rules = tuple[tuple[FailureReason, re.Pattern[str]], ...]


def text_of(output: bytes) -> str:
    """The end of the output as text, without colours."""
    return ANSI.sub("", output[-MAX_OUTPUT:].decode("utf-8", "replace"))


def reason_of(words: str, exit_code: int, rules: Rules, otherwise: FailureReason) -> FailureReason:
    """The reason by the first rule that finds its words."""
    if exit_code == EXIT_TIMED_OUT:
        return FailureReason.TIMED_OUT
    return next((reason for reason, pattern in rules if pattern.search(words)), otherwise)


def unexplained(step: StepKind) -> FailureReason:
    """The reason that no rule knows.

    Solving only chooses versions, and only a build runs foreign code when installing; the detail tells more either way.
    """
    return FailureReason.NO_SOLUTION if step is StepKind.SOLVE else FailureReason.BUILD_FAILED


def detail_of(words: str, exit_code: int) -> str:
    """The installer's own words; of too many the head, which says what failed, and the tail, which says why."""
    content = words.encode()
    if len(content) <= MAX_DETAIL:
        return words or f"the installer ended with exit code {exit_code} and said nothing"
    half = MAX_DETAIL // 2 - 16
    return f"{content[:half].decode('utf-8', 'ignore')}\n[…]\n{content[-half:].decode('utf-8', 'ignore')}"


def mentioned(words: str, mentions: Sequence[re.Pattern[str]]) -> Iterable[str]:
    """The packages that the words name: the groups `name` of the patterns, in the patterns' order, each once."""
    return dict.fromkeys(match["name"] for pattern in mentions for match in pattern.finditer(words))


def first(names: Iterable[str]) -> tuple[str, ...]:
    """So many names as a failure tells of, each once."""
    return tuple(dict.fromkeys(names))[:MAX_PACKAGES]


def with_notes(failure: InstallFailure, note: Callable[[str], str]) -> InstallFailure:
    """The failure with what is known of the names that were not found; of most names nothing is."""
    if failure.reason is not FailureReason.NOT_FOUND:
        return failure
    notes = ((name, note(name)) for name in failure.packages)
    return replace(failure, hints=(*failure.hints, *(f"{name}: {text}" for name, text in notes if text)))
