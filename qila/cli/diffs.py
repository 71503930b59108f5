"""A comparison of locks for people, for scripts, and for a review."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.json_format import MessageToDict
from rich.text import Text

from qila.cli.render import one_line
from services.resolver.diff import changed_parts
from services.resolver.packages import license_told, split_purl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qila.gateway.v1 import gateway_pb2 as pb

ADDED, REMOVED, CHANGED = "added", "removed", "changed"
_STYLES: Final = {ADDED: ("+", "green"), REMOVED: ("-", "red"), CHANGED: ("~", "yellow")}
_PARTS: Final = {"version": "version", "hashes": "hashes", "license": "licence"}
_SHOWN_REQUIRERS: Final = 3
_SHOWN_HASHES: Final = 3
# A longer table is folded away, and one that a review comment cannot hold is cut.
_OPEN_ROWS: Final = 20
_MAX_COMMENT: Final = 60_000
_PLAIN: Final = re.compile(r"[A-Za-z0-9@/._+:~%=,;()#* -]*[A-Za-z0-9@/._+:~%=,;()#*-]")
_ALPHANUMERIC: Final = re.compile(r"[^A-Za-z0-9 ]")


@dataclass(frozen=True, kw_only=True)
class _Change:
    """One difference in words that every format uses."""

    kind: str
    before: pb.LockedPackage | None
    after: pb.LockedPackage | None
    parts: tuple[str, ...] = ()

    @property
    def package(self) -> pb.LockedPackage:
        """The side that is there; the later one of two."""
        package = self.after or self.before
        assert package is not None
        return package

    @property
    def purl(self) -> str:
        """Without its version."""
        return split_purl(self.package.purl)[0]


def _change(message: pb.PackageChange) -> _Change:
    before = message.before if message.HasField("before") else None
    after = message.after if message.HasField("after") else None
    if before and after:
        return _Change(kind=CHANGED, before=before, after=after, parts=changed_parts(before, after))
    return _Change(kind=ADDED if after else REMOVED, before=before, after=after)


def as_json(diff: pb.DiffLocksResponse) -> str:
    """Everything, with the same bytes for the same difference."""
    changes = [_change(message) for message in diff.changes]
    document = {
        **_counts(changes),
        "unchanged": diff.unchanged_count,
        "changes": [_to_json(change) for change in changes],
    }
    return json.dumps(document, indent=2, sort_keys=True)


def as_text(diff: pb.DiffLocksResponse) -> list[Text]:
    """Lines for a terminal."""
    changes = [_change(message) for message in diff.changes]
    lines = [line for change in changes for line in _text_lines(change)]
    return [*lines, Text(_summary(changes, diff.unchanged_count), style="bold")]


def as_markdown(diff: pb.DiffLocksResponse) -> str:
    """A table for a review comment, in which nothing that a package calls itself is markup."""
    changes = [_change(message) for message in diff.changes]
    summary = _summary(changes, diff.unchanged_count)
    if not changes:
        return f"**{summary}**\n"
    table = _table(changes)
    if len(changes) > _OPEN_ROWS:
        return f"**{summary}**\n\n<details><summary>All differences</summary>\n\n{table}\n\n</details>\n"
    return f"**{summary}**\n\n{table}\n"


def _counts(changes: Sequence[_Change]) -> dict[str, int]:
    return {kind: sum(change.kind == kind for change in changes) for kind in (ADDED, REMOVED, CHANGED)}


def _summary(changes: Sequence[_Change], unchanged: int) -> str:
    same = f"{unchanged} {'is' if unchanged == 1 else 'are'} the same"
    if not changes:
        return f"No package differs; {same}"
    counts = ", ".join(f"{count} {kind}" for kind, count in _counts(changes).items() if count)
    return f"{len(changes)} package{'s differ' if len(changes) > 1 else ' differs'}: {counts}; {same}"


def _to_json(change: _Change) -> dict[str, Any]:
    sides = {"before": change.before, "after": change.after}
    return {
        "kind": change.kind,
        "purl": change.purl,
        "changed": list(change.parts),
        **{
            name: MessageToDict(side, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
            for name, side in sides.items()
            if side
        },
    }


def _text_lines(change: _Change) -> list[Text]:
    sign, style = _STYLES[change.kind]
    lines = [f"{sign} {change.purl} {_versions(change)}  ({_why(change.package)})"]
    if "license" in change.parts:
        lines.append(f"    licence: {' -> '.join(_licenses(change))}")
    if "hashes" in change.parts and "version" not in change.parts:
        lines += [f"    {line}" for line in _hash_lines(change)]
    return [Text(one_line(line), style=style) for line in lines]


def _versions(change: _Change) -> str:
    versions = [side.version for side in (change.before, change.after) if side]
    return " -> ".join(dict.fromkeys(versions))


def _licenses(change: _Change) -> list[str]:
    return [one_line(license_told(side)) for side in (change.before, change.after) if side]


def _hash_lines(change: _Change) -> list[str]:
    """The hashes of one version that only one side has: what was installed under one name is not the same."""
    assert change.before is not None
    assert change.after is not None
    before, after = set(change.before.hashes), set(change.after.hashes)
    return [f"hash - {text}" for text in _some(sorted(before - after), _SHOWN_HASHES)] + [
        f"hash + {text}" for text in _some(sorted(after - before), _SHOWN_HASHES)
    ]


def _why(package: pb.LockedPackage) -> str:
    requirers = _requirers(package)
    if package.direct:
        return "direct"
    return f"required by {', '.join(requirers)}" if requirers else "transitive"


def _requirers(package: pb.LockedPackage) -> list[str]:
    return _some([purl.partition("/")[2] or purl for purl in package.required_by], _SHOWN_REQUIRERS)


def _some(items: Sequence[str], limit: int) -> list[str]:
    rest = len(items) - limit
    return [*items[:limit], *([f"{rest} more"] if rest > 0 else [])]


def _table(changes: Sequence[_Change]) -> str:
    lines = ["| Package | Before | After | What changed | Required by |", "|---|---|---|---|---|"]
    length = 0
    for number, change in enumerate(changes):
        row = _row(change)
        length += len(row)
        if length > _MAX_COMMENT:
            lines.append(f"| {len(changes) - number} more | | | `qila diff --format json` shows all | |")
            break
        lines.append(row)
    return "\n".join(lines)


def _row(change: _Change) -> str:
    cells = [
        _code(change.purl),
        _code(change.before.version) if change.before else "",
        _code(change.after.version) if change.after else "",
        _what(change),
        "the program" if change.package.direct else ", ".join(map(_code, _requirers(change.package))),
    ]
    return f"| {' | '.join(cells)} |"


def _what(change: _Change) -> str:
    if change.kind != CHANGED:
        return f"**{change.kind}**"
    words = [_PARTS[part] for part in change.parts if part != "license"]
    if "hashes" in change.parts and "version" not in change.parts:
        words = ["**hashes of the same version**"]
    if "license" in change.parts:
        words.append(f"licence {' → '.join(map(_code, _licenses(change)))}")
    return ", ".join(words)


def _code(text: str) -> str:
    """A stranger's text as code: no markup, no link, no mention, and no end of the table's cell."""
    cut = one_line(text)[:200]
    if not cut:
        return ""
    if _PLAIN.fullmatch(cut):
        return f"`{cut}`"
    entities = _ALPHANUMERIC.sub(lambda found: f"&#{ord(found[0])};", cut)
    return f"<code>{entities}</code>"
