"""Which other image of the installation has the version of a tool that a manifest asks for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_SHOWN = 3
RELEASED = re.compile(r"\d{1,4}(\.\d{1,9}){0,4}")


def offered(images: Mapping[str, Mapping[str, str]], tool: str, word: str, fits: Callable[[str], bool]) -> str:
    """What to add to an error's text: the images, by name, whose version fits; empty if none does.

    `tool` is the toolchain's name, `word` its name for a person; `fits` gets full versions.
    """
    found = [
        f"image {name!r} has {word} {toolchain[tool]}"
        for name, toolchain in images.items()
        if RELEASED.fullmatch(toolchain.get(tool, "")) and fits(toolchain[tool])
    ]
    return "".join(f"; {text}" for text in found[:MAX_SHOWN])
