"""The operator's package rules, applied to a packument: what they leave, and what they refuse."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from services.executor.egress.ecosystems.npm_packument import Packument
from services.executor.egress.ecosystems.npm_versions import newest
from services.executor.egress.ecosystems.port import LeftOut, PackageRules
from services.executor.egress.verdicts import Refused

_NAMES_TOLD = 5


@dataclass(frozen=True, kw_only=True)
class Permitted:
    """What is passed on of a packument: versions in the page's order, and the tags that still lead to one.

    `refused` gives the rules' reason by version.
    """

    versions: tuple[str, ...]
    tags: Mapping[str, str]
    refused: Mapping[str, str]


def check_package(rules: PackageRules, name: str) -> None:
    """Raise Refused if the rules refuse the whole package."""
    reason = rules.refusal(name, None, None)
    if reason is not None:
        raise _refused(name, reason)


def check_release(rules: PackageRules, packument: Packument, version: str) -> None:
    """Raise Refused if the rules refuse this version of the package."""
    reason = rules.refusal(packument.name, version, packument.released(version))
    if reason is not None:
        raise _refused(f"{packument.name}@{version}", reason)


def permit(rules: PackageRules, packument: Packument) -> Permitted:
    """What the rules leave of a packument.

    Raises:
        Refused: nothing, though there were versions.
    """
    refused = {
        version: reason
        for version in packument.releases
        if (reason := rules.refusal(packument.name, version, packument.released(version))) is not None
    }
    versions = tuple(version for version in packument.releases if version not in refused)
    if refused and not versions:
        commonest = Counter(refused.values()).most_common(1)[0][0]
        raise _refused(f"every version of {packument.name}", commonest)
    return Permitted(versions=versions, tags=_tags(packument, frozenset(versions)), refused=refused)


def _tags(packument: Packument, versions: frozenset[str]) -> dict[str, str]:
    tags = {tag: version for tag, version in packument.tags.items() if version in versions}
    if "latest" in packument.tags and "latest" not in tags:
        replacement = newest(versions, before=packument.tags["latest"])
        if replacement is not None:
            tags["latest"] = replacement
    return tags


def left_out(packument: Packument, permitted: Permitted) -> tuple[LeftOut, ...]:
    """What the record says of a packument's versions that are not passed on."""
    reasons: dict[str, list[str]] = {}
    for release in packument.dropped:
        reasons.setdefault(release.reason, []).append(release.version)
    for version, reason in permitted.refused.items():
        reasons.setdefault(f"policy: {reason}", []).append(version)
    return tuple(
        LeftOut(reason=reason, count=len(names), names=tuple(names[:_NAMES_TOLD]))
        for reason, names in sorted(reasons.items())
    )


def _refused(what: str, reason: str) -> Refused:
    return Refused(
        status=403,
        rule=f"policy: {reason}",
        advice=f"The operator of this sandbox does not allow {what} from npm: {reason}.",
    )
