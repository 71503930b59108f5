"""The images that sandboxes can be made from: the installation's own, and those that the operator names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.executor.errors import ImageNotAllowedError, ImageUnknownError

DEFAULT_NAME: Final = "default"
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
MAX_IMAGES: Final = 32


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image that was looked at: `reference` is what the engine knows it by, `toolchains` are names and versions."""

    name: str
    reference: str
    toolchains: Mapping[str, str] = field(default_factory=dict)


class Images:
    """All that are allowed, the default first."""

    def __init__(self, default: Image, others: Iterable[Image] = ()) -> None:
        self.default = default
        self._by_name = {image.name: image for image in (default, *others)}

    def all(self) -> Sequence[Image]:
        """Every one, the default first."""
        return list(self._by_name.values())

    def find(self, name: str) -> Image:
        """The image of a name; the empty one is the default's. ImageUnknownError: it is never a reference."""
        image = self._by_name.get(name or DEFAULT_NAME)
        if image is None:
            raise ImageUnknownError(name, tuple(self._by_name))
        return image

    def allows(self, name: str) -> bool:
        """Whether a sandbox of that image may run."""
        return name in self._by_name

    def references(self, sandbox_id: str, name: str, made_from: str) -> Sequence[str]:
        """What a sandbox's container can be made from, best first: what it was made from before, else what has its
        image's name now. ImageNotAllowedError.
        """  # noqa: D205 - one sentence
        if not self.allows(name):
            raise ImageNotAllowedError(sandbox_id, name, tuple(self._by_name))
        return list(dict.fromkeys((made_from, self._by_name[name].reference)))
