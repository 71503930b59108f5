"""The variables of PEP 508 markers as they are in a sandbox, not in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.version import InvalidVersion

if TYPE_CHECKING:
    from collections.abc import Mapping

# The Python of the sandbox image, where nobody says which one it is.
SANDBOX_PYTHON = "3.13.0"

# What Python calls the machines of the sandboxes' platforms.
MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
DEFAULT_PLATFORM = "linux/amd64"

# Each of them is a call in the call before it where a marker is read, evaluated or written.
MAX_PARENTHESES = 50
TOO_DEEP = "((("


class UnreadableMarkerError(ValueError):
    """A marker that cannot be parsed, or that has no value; its text is the marker's, cut."""


def marker_environment(python: str, platform: str = DEFAULT_PLATFORM) -> dict[str, str]:
    """Every marker variable for a full Python version such as 3.13.5; `extra` is empty."""
    return {
        "extra": "",
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": "posix",
        "platform_machine": MACHINES.get(platform, MACHINES[DEFAULT_PLATFORM]),
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": "linux",
    }


def holds(
    marker: Marker | str, environment: Mapping[str, Any], context: Literal["metadata", "lock_file"] = "metadata"
) -> bool:
    """Whether a marker holds in an environment; raises UnreadableMarkerError, and nothing else, whatever it says."""
    try:
        parsed = parse_marker(marker) if isinstance(marker, str) else marker
        return parsed.evaluate(dict(environment), context=context)
    except RecursionError as error:
        raise UnreadableMarkerError(TOO_DEEP) from error
    except (UndefinedComparison, UndefinedEnvironmentName, InvalidVersion) as error:
        raise UnreadableMarkerError(str(marker)[:80]) from error


def parse_marker(text: str) -> Marker:
    """The marker that a text is, of a depth that all can work with; raises UnreadableMarkerError."""
    if is_too_deep(text):
        raise UnreadableMarkerError(text[:80])
    try:
        return Marker(text)
    except InvalidMarker as error:
        raise UnreadableMarkerError(text[:80]) from error


def is_too_deep(text: str) -> bool:
    """Whether a text holds so many parentheses that a marker of it might be nested too deep to be worked with."""
    return text.count("(") > MAX_PARENTHESES
