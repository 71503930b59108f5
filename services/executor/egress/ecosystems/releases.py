"""What the operator's package rules leave of a package: all of it, one release, or a list of releases."""

import asyncio
import datetime
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from services.executor.egress.ecosystems.port import LeftOut, PackageRules
from services.executor.egress.verdicts import Refused, TurnedAway

# Each look-up is a request to the registry, the first time; what lies beyond is left out.
MAX_LOOKUPS = 300
_LOOKUPS_AT_ONCE = 16
_NAMES_TOLD = 5

ReleaseTime = Callable[[str], Awaitable[datetime.datetime | None]]
"""When a version was released; None if the registry does not say."""


@dataclass(frozen=True, kw_only=True)
class Sifted:
    """The versions that the rules allow, in the order in which they were given, and an account of the others."""

    kept: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


def refuse_package(rules: PackageRules, name: str) -> None:
    """Let a package pass.

    Raises:
        Refused: the rules refuse all of it.
    """
    _raise(name, name, rules.refusal(name, None, None))


async def refuse_release(rules: PackageRules, name: str, version: str, release_time: ReleaseTime) -> None:
    """Let one release pass; its age is looked up only if the rules ask for it.

    Raises:
        Refused: the rules refuse it, or all of the package.
        TurnedAway: as `release_time`.
    """
    refuse_package(rules, name)
    released = await release_time(version) if rules.needs_release_times else None
    _raise(name, f"{name} {version}", rules.refusal(name, version, released))


def _raise(name: str, subject: str, why: str | None) -> None:
    """Refuse a subject; a reason names the package first, which the record needs and the reader of advice does not."""
    if why is not None:
        advice = f"The operator's package rules refuse {subject}: {why.removeprefix(f'{name}: ')}."
        raise Refused(status=403, rule=f"policy: {why}", advice=advice)


async def sift(rules: PackageRules, name: str, newest_first: Sequence[str], release_time: ReleaseTime) -> Sifted:
    """What the rules leave of a package's versions. Where they ask for ages, the newest few hundred are looked up.

    Raises:
        TurnedAway: no age at all could be looked up.
    """
    looked_up: dict[str, datetime.datetime | None] = {}
    if rules.needs_release_times:
        looked_up = await _look_up(newest_first[:MAX_LOOKUPS], release_time)
    # A long list is work for a thread: other sandboxes are being served meanwhile.
    return await asyncio.to_thread(_apply, rules, name, newest_first, looked_up)


def _apply(
    rules: PackageRules,
    name: str,
    newest_first: Sequence[str],
    looked_up: Mapping[str, datetime.datetime | None],
) -> Sifted:
    refusals: dict[str, str] = {}
    if rules.needs_release_times:
        beyond = f"{name}: age not looked up beyond the newest {MAX_LOOKUPS} releases"
        refusals = dict.fromkeys(newest_first[MAX_LOOKUPS:], beyond)
    for version in newest_first:
        why = refusals.get(version) or rules.refusal(name, version, looked_up.get(version))
        if why is not None:
            refusals[version] = why
    return Sifted(
        kept=tuple(version for version in newest_first if version not in refusals),
        left_out=account((version, f"policy: {why}") for version, why in refusals.items()),
    )


def account(left_out: Iterable[tuple[str, str]]) -> tuple[LeftOut, ...]:
    """One entry per reason, from pairs of a name and the reason why it is left out."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in left_out:
        by_reason.setdefault(reason, []).append(name)
    return tuple(
        LeftOut(reason=reason, count=len(names), names=tuple(names[:_NAMES_TOLD]))
        for reason, names in by_reason.items()
    )


async def _look_up(versions: Sequence[str], release_time: ReleaseTime) -> dict[str, datetime.datetime | None]:
    """Ages that cannot be had are unknown, which the rules refuse; only if none can be had, the question fails."""
    slots = asyncio.Semaphore(_LOOKUPS_AT_ONCE)
    failures: list[TurnedAway] = []

    async def one(version: str) -> datetime.datetime | None:
        async with slots:
            try:
                return await release_time(version)
            except TurnedAway as error:
                failures.append(error)
                return None

    times = await asyncio.gather(*(one(version) for version in versions))
    if failures and len(failures) == len(versions):
        raise failures[0]
    return dict(zip(versions, times, strict=True))
