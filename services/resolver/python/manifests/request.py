"""What every reader of manifests and locks is asked with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from services.resolver.python.environment import marker_environment

if TYPE_CHECKING:
    from packaging.markers import Marker

    from services.resolver.model import Context


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """The workspace's files, the sandbox's Python, and what the exec asks for.

    `registries` are the addresses of the registry that the sandbox reaches, where they are known; `extras` and `groups`
    are canonical names.
    """

    files: Mapping[str, bytes]
    python: str
    platform: str = "linux/amd64"
    registries: frozenset[str] = frozenset()
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        """The variables of markers in the sandbox."""
        return marker_environment(self.python, self.platform)

    def applies(self, marker: Marker | None) -> bool:
        """Whether a marker holds in the sandbox, without extras."""
        return marker is None or marker.evaluate(dict(self.environment()))

    def is_registry(self, url: str) -> bool:
        """Whether an index is the registry itself, or one of the sandbox's doors to it."""
        return any(f"{url.rstrip('/')}/".startswith(registry) for registry in self.registries)


def request_of(files: Mapping[str, bytes], context: Context) -> Request:
    """The request that a plan's context makes."""
    return Request(
        files=files,
        python=context.toolchain["python"],
        platform=context.platform,
        registries=frozenset((*context.registry_urls, *context.registry_urls.values())),
        extras=canonical_names(context.options.extras),
        groups=canonical_names(context.options.groups),
    )


def canonical_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names as extras and groups are compared, each once."""
    return tuple(dict.fromkeys(str(canonicalize_name(name)) for name in names))
