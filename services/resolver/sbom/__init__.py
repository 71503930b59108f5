"""The SBOM of an exec in the published formats: the same bytes for the same subject and packages."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from services.resolver.model import Sbom, SbomFormat
from services.resolver.sbom.content import collect
from services.resolver.sbom.cyclonedx import render_cyclonedx
from services.resolver.sbom.spdx import render_spdx

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.resolver.lockfile import QilaLock
    from services.resolver.model import LockedPackage, SbomSubject

RENDERERS = MappingProxyType({SbomFormat.CYCLONEDX_1_6: render_cyclonedx, SbomFormat.SPDX_2_3: render_spdx})


def render_sbom(
    subject: SbomSubject,
    locks: Iterable[QilaLock],
    unmanaged: Iterable[LockedPackage],
    sbom_format: SbomFormat,
) -> Sbom:
    """The SBOM of an exec from its locks, and from the packages that no lock stands behind."""
    return Sbom(content=RENDERERS[sbom_format](collect(subject, locks, unmanaged)))
