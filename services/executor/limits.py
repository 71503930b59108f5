"""The limits that a sandbox may have, and those that it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Final

from services.executor.errors import InvalidFieldError, QuotaUnavailableError
from services.executor.profile import Limits

MINIMUM: Final = Limits(cpu_millis=10, memory_bytes=64 << 20, pids=16, disk_bytes=64 << 20)
MAXIMUM: Final = Limits(cpu_millis=64_000, memory_bytes=1 << 40, pids=32_768, disk_bytes=1 << 40)


def grant(wanted: Mapping[str, int], default: Limits) -> Limits:
    """What is wanted by field name, 0 for the default. A default of no bytes of disk means that nothing can bound them.

    Raises:
        InvalidFieldError: a limit is out of bounds.
        QuotaUnavailableError: one is wanted that this host cannot enforce.
    """
    if wanted["disk_bytes"] and not default.disk_bytes:
        raise QuotaUnavailableError
    granted = {name: wanted[name] or getattr(default, name) for name in _NAMES}
    for name, value in granted.items():
        low, high = getattr(MINIMUM, name), getattr(MAXIMUM, name)
        if not low <= value <= high and (value or name != "disk_bytes"):
            raise InvalidFieldError(f"limits.{name}", f"must be {low} to {high}, or 0 for the default")
    return Limits(**granted)


_NAMES: Final = tuple(field.name for field in fields(Limits))
