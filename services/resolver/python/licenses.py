"""One SPDX expression for what a package's metadata says about its licence."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from license_expression import ExpressionError, get_spdx_licensing  # type: ignore[import-untyped] # ships no types

if TYPE_CHECKING:
    from collections.abc import Sequence


NO_ASSERTION = "NOASSERTION"
# Longer texts are whole licences, which no expression can name.
MAX_EXPRESSION = 500
MAX_RAW_TEXT = 2_000

CLASSIFIERS = {
    "Academic Free License (AFL)": "AFL-3.0",
    "Apache Software License": "Apache-2.0",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 (LGPLv2)": "LGPL-2.0-only",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "zlib/libpng License": "Zlib",
    "Zope Public License": "ZPL-2.1",
}


@cache
def _licensing() -> Any:
    return get_spdx_licensing()


def spdx(text: str | None) -> str | None:
    """The expression in its normal form if every name in it is SPDX's, else None."""
    if not text or len(text) > MAX_EXPRESSION or "\n" in text:
        return None
    licensing = _licensing()
    try:
        parsed = licensing.parse(text, validate=True, strict=True)
    except (ExpressionError, ValueError, TypeError, AttributeError, IndexError):
        return None
    return None if parsed is None else str(parsed)


def license_of(expression: str | None, license_text: str | None, classifiers: Sequence[str]) -> tuple[str, str]:
    """The SPDX expression, and the raw text where only that is known.

    License-Expression comes first, then an SPDX-valid License, then the classifiers (all of them, joined by AND: which
    of several holds is not said), then NOASSERTION.
    """
    found = spdx(expression) or spdx(license_text) or _from_classifiers(classifiers)
    if found:
        return found, ""
    raw = expression or license_text or "; ".join(classifiers)
    return NO_ASSERTION, raw[:MAX_RAW_TEXT]


def _from_classifiers(classifiers: Sequence[str]) -> str | None:
    names = [item.rpartition(" :: ")[2] for item in classifiers if item.startswith("License :: ")]
    named = [name for name in names if name != "OSI Approved"]
    known = sorted({CLASSIFIERS[name] for name in named if name in CLASSIFIERS})
    return " AND ".join(known) if known and all(name in CLASSIFIERS for name in named) else None
