"""Dependencies that are declared and that nothing which was read can need: only the sure cases."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from services.resolver.model import Notice, NoticeKind
from services.resolver.node.package import MANIFEST, Section
from services.resolver.node.project_lock import LOCK_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.resolver.node.detect import Detection
    from services.resolver.node.package import Declared, Packages, Workspace
    from services.resolver.node.table import PackageTable

# What others load by a name that they make, or what only a compiler reads.
EXTENSION = re.compile(
    r"types|plugin|preset|loader|config|adapter|driver|transport|dialect|polyfill|register|cli\b|theme|locale|reporter"
)
MAX_NOTICES = 50
MAX_SEARCHED_BYTES = 16 * 1024 * 1024


def unused_requirements(
    declared: Iterable[Declared], workspace: Workspace, detection: Detection, table: PackageTable
) -> list[Notice]:
    """Hints about dependencies whose name stands in no file that was read but in package.json's own list.

    Nothing is said where an import's name is computed, a file is broken, or there is very much to search.
    """
    if detection.dynamic or any(item.kind is NoticeKind.BROKEN_FILE for item in detection.notices):
        return []
    candidates = [item for item in declared if _may_be_judged(item, detection, table)]
    # A list of dependencies is no use of them; scripts are.
    lists = {*LOCK_NAMES, MANIFEST}
    texts = [content for path, content in workspace.files.items() if path.rpartition("/")[2] not in lists]
    texts += [" ".join(_scripts(workspace.packages, item)).encode() for item in candidates[:1]]
    if sum(map(len, texts)) > MAX_SEARCHED_BYTES:
        return []
    kind = NoticeKind.UNUSED_REQUIREMENT
    return [
        Notice(kind=kind, path=item.path, line=item.line, subject=item.name)
        for item in candidates[:MAX_NOTICES]
        if not any(item.name.encode() in text for text in texts)
    ]


def _scripts(packages: Packages, item: Declared) -> list[str]:
    package = packages.at(item.path.rpartition("/")[0])
    return [str(value) for value in package.mapping("scripts").values()] if package is not None else []


def _may_be_judged(item: Declared, detection: Detection, table: PackageTable) -> bool:
    return (
        item.section is Section.PRODUCTION
        and item.name not in detection.used
        and item.name not in table.loaded_by_others
        and not EXTENSION.search(item.name)
    )
