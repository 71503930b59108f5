"""One SPDX expression for what a package's metadata says about its licence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.resolver.licenses import MAX_RAW_TEXT, NO_ASSERTION, spdx

if TYPE_CHECKING:
    from collections.abc import Sequence

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
