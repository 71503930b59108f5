"""What the author declared, wherever it stood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError
from services.resolver.python.locks.requirements_lock import exact_version

if TYPE_CHECKING:
    from services.resolver.model import Notice
    from services.resolver.python.locks.model import Lock
    from services.resolver.python.manifests.requirements_file import Declared


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What is to be installed; `files` are the exact bytes that decide it, by path.

    `lock` holds the pins that stand for the requirements; `drifted` says that they no longer do, and are preferences.
    `importable` are requirements that count only if the program imports what they provide. `given` says that the lock
    came from outside the workspace.
    """

    files: Mapping[str, bytes]
    requirements: tuple[Declared, ...]
    constraints: tuple[Declared, ...] = ()
    notices: tuple[Notice, ...] = ()
    importable: tuple[Declared, ...] = ()
    lock: Lock | None = None
    drifted: bool = False
    given: bool = False

    @property
    def is_lock(self) -> bool:
        """Whether it pins and hashes all that it names: then there is nothing to solve."""
        return bool(self.requirements) and all(item.hashes for item in self.requirements)

    @property
    def written(self) -> tuple[Declared, ...]:
        """The requirements that a person wrote: none of a lock's."""
        if self.is_lock or self.given:
            return ()
        return tuple(item for item in self.requirements if self.lock is None or item.path != self.lock.path)


def check_hashes(requirements: Sequence[Declared], *, required: bool) -> None:
    """Hashes are all or nothing, and stand beside exact versions: what is half checked is not checked."""
    if not required and not any(item.hashes for item in requirements):
        return
    for item in requirements:
        if not item.hashes or not exact_version(item):
            reason = f"{item.specifier.name}: where hashes are used, each requirement needs a hash and an exact version"
            raise ManifestError(path=item.path, line=item.line, reason=reason)
