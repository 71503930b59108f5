"""Which imports of a file a program cannot do without, given its `try … except ImportError` blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.resolver.python.scan import Import


@dataclass(kw_only=True, slots=True)
class _Group:
    """One `try`: the imports of its body and of its handlers."""

    gives_up: bool = False
    body: list[Import] = field(default_factory=list)
    handler: list[Import] = field(default_factory=list)


def needed_imports(
    imports: Sequence[Import], is_available: Callable[[Import], bool], is_known: Callable[[Import], bool]
) -> tuple[list[Import], list[Import]]:
    """Divide imports into those that are needed and those that the program can do without.

    A handler that does nothing, or that falls back on something available, makes the body's imports optional. A handler
    that gives up, or imports the very same module, leaves them needed. Where body and handler name two packages, one
    is needed: the body's if it is known, else the handler's.
    """
    groups: dict[int, _Group] = {}
    for item in imports:
        for guard in item.guards:
            group = groups.setdefault(guard.group, _Group())
            group.gives_up = group.gives_up or guard.gives_up
            (group.handler if guard.in_handler else group.body).append(item)
    verdicts = {number: _verdict(group, is_available, is_known) for number, group in groups.items()}
    needed: list[Import] = []
    skipped: list[Import] = []
    for item in imports:
        wanted = all(verdicts[guard.group][guard.in_handler] for guard in item.guards)
        # What is there anyway costs nothing, and following it may find more.
        (needed if wanted or is_available(item) else skipped).append(item)
    return needed, skipped


def _verdict(
    group: _Group, is_available: Callable[[Import], bool], is_known: Callable[[Import], bool]
) -> tuple[bool, bool]:
    """Whether the body's imports are needed, and whether the handler's are."""
    if all(is_available(item) for item in group.body):
        return True, False
    retried = {item.module for item in group.body} & {item.module for item in group.handler}
    if group.gives_up or retried:
        return True, False
    alternatives = [item for item in group.handler if not is_available(item)]
    if not alternatives or len(alternatives) < len(group.handler):
        return False, False
    body_known = all(is_available(item) or is_known(item) for item in group.body)
    return (True, False) if body_known else (False, True)
