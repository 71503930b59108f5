"""Conditions around imports whose value is known before the program runs: platform, Python version, type checking."""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FALSE = re.compile(r"(typing\.|t\.)?TYPE_CHECKING|False|0|six\.PY2|PY2")
TRUE = re.compile(r"True|1|six\.PY3|PY3")
PLATFORM = re.compile(
    r"""(?P<what>sys\.platform|os\.name|platform\.system\(\)|sys\.platform\.lower\(\)|platform\.system\(\)\.lower\(\))
    (?:(?P<comparison>==|!=)|(?P<start>\.startswith\())['"](?P<value>\w+)['"]\)?""",
    re.VERBOSE,
)
VERSION = re.compile(
    r"""sys\.version_info(?P<major>\[0\]|\.major)?(?:\[:\d\])?(?P<comparison><=|>=|==|!=|<|>)
    \(?(?P<value>\d+(?:,\d+)*),?\)?""",
    re.VERBOSE,
)
LINUX = frozenset({"linux", "linux2", "posix"})
COMPARISONS: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
# Longer ones are no test of the platform, and need not be searched.
MAX_CONDITION = 200


def evaluate(condition: str, python: tuple[int, ...]) -> bool | None:
    """The value of a condition on Linux under a Python version such as (3, 13, 5); None if it cannot be known."""
    if len(condition) > MAX_CONDITION:
        return None
    return _evaluate(re.sub(r"\s+", " ", condition).strip(), python)


def _evaluate(condition: str, python: tuple[int, ...]) -> bool | None:
    alternatives = condition.split(" or ")
    if len(alternatives) > 1:
        return _any([_evaluate(part, python) for part in alternatives])
    conjuncts = condition.split(" and ")
    if len(conjuncts) > 1:
        opposite = _any([_negated(_evaluate(part, python)) for part in conjuncts])
        return _negated(opposite)
    if condition.startswith("not "):
        return _negated(_evaluate(condition.removeprefix("not "), python))
    return _simple(condition.replace(" ", ""), python)


def _simple(condition: str, python: tuple[int, ...]) -> bool | None:
    bare = condition[1:-1] if condition.startswith("(") and condition.endswith(")") else condition
    if FALSE.fullmatch(bare):
        return False
    if TRUE.fullmatch(bare):
        return True
    platform = PLATFORM.fullmatch(bare)
    if platform:
        on_linux = platform["value"].lower() in LINUX
        return not on_linux if platform["comparison"] == "!=" else on_linux
    version = VERSION.fullmatch(bare)
    if version:
        value = tuple(int(part) for part in version["value"].split(","))
        return COMPARISONS[version["comparison"]](
            python[:1] if version["major"] else python[: max(2, len(value))], value
        )
    return None


def _any(values: list[bool | None]) -> bool | None:
    if True in values:
        return True
    return None if None in values else False


def _negated(value: bool | None) -> bool | None:  # noqa: FBT001 - a truth value is what it negates
    return None if value is None else not value
