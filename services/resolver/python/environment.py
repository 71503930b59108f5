"""The variables of PEP 508 markers as they are in a sandbox, not in this process."""

from __future__ import annotations

# The Python of the sandbox image, where nobody says which one it is.
SANDBOX_PYTHON = "3.13.0"

# What Python calls the machines of the sandboxes' platforms.
MACHINES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
DEFAULT_PLATFORM = "linux/amd64"


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
