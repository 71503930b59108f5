"""What a manifest asks for that a lock does not give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from services.resolver.model import Notice, NoticeKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.resolver.python.locks.model import Lock, Pin
    from services.resolver.python.manifests.request import Request
    from services.resolver.python.manifests.requirements_file import Declared

MAX_NOTICES = 20


def drift(lock: Lock, requirements: Iterable[Declared], request: Request, consequence: str) -> list[Notice]:
    """A notice for each requirement that the lock does not satisfy, up to a number; they say what follows from it."""
    pins = {pin.name: pin for pin in lock.pins}
    found: list[Notice] = []
    left_out = 0
    for item in requirements:
        name = str(canonicalize_name(item.specifier.name))
        pin = pins.get(name)
        if not request.applies(item.specifier.marker) or (pin and _satisfies(pin, item)):
            continue
        if len(found) == MAX_NOTICES:
            left_out += 1
            continue
        locked = f"{lock.path}:{pin.line} locks {pin.version}" if pin else f"{lock.path} does not lock it"
        detail = f"{item.path} asks for {item.specifier}, and {locked}; {consequence}"
        found.append(Notice(kind=NoticeKind.LOCK_DRIFT, path=item.path, line=item.line, subject=name, detail=detail))
    if left_out:
        detail = f"{left_out} more requirements are not as locked; {consequence}"
        found.append(Notice(kind=NoticeKind.LOCK_DRIFT, path=lock.path, subject=lock.path, detail=detail))
    return found


def _satisfies(pin: Pin, item: Declared) -> bool:
    return item.specifier.specifier.contains(pin.version, prereleases=True)
