"""The operator's rules on PyPI's side: which release a file belongs to, and an index without what is refused."""

import datetime
from collections.abc import Iterator
from dataclasses import replace

from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

from services.executor.egress.ecosystems.port import PackageRules
from services.executor.egress.ecosystems.pypi_index import DroppedFile, IndexFile, ProjectIndex
from services.executor.egress.ecosystems.pypi_paths import normalise_name

# No version: the rules close on it.
_UNKNOWN_VERSION = ""


def releases_of(filename: str) -> Iterator[tuple[str, str]]:
    """Project and version that a file's name tells; of an old form, every project that it could be of."""
    try:
        if filename.endswith(".whl"):
            name, version, _, _ = parse_wheel_filename(filename)
        else:
            name, version = parse_sdist_filename(filename)
    except (InvalidWheelFilename, InvalidSdistFilename):
        parts = filename.split("-")
        for count in range(1, len(parts) + 1):
            yield normalise_name("-".join(parts[:count])), _UNKNOWN_VERSION
    else:
        yield name, str(version)


def file_refusal(rules: PackageRules, filename: str, upload_time: str | None) -> str | None:
    """Why a file may not be had; None if it may."""
    released = release_time(upload_time)
    refusals = (rules.refusal(name, version, released) for name, version in releases_of(filename))
    return next((why for why in refusals if why is not None), None)


def without_refused(index: ProjectIndex, rules: PackageRules) -> ProjectIndex:
    """The index without the files that the rules refuse; they count as dropped, with `policy: ` before the reason."""
    kept: list[IndexFile] = []
    dropped: list[DroppedFile] = []
    for file in index.files:
        version = next((v for name, v in releases_of(file.filename) if name == index.name), _UNKNOWN_VERSION)
        why = rules.refusal(index.name, version, release_time(file.upload_time))
        if why is None:
            kept.append(file)
        else:
            dropped.append(DroppedFile(filename=file.filename, reason=f"policy: {why}"))
    return replace(index, files=tuple(kept), dropped=(*index.dropped, *dropped))


def release_time(upload_time: str | None) -> datetime.datetime | None:
    """The index's time of an upload; None if it has none that can be read."""
    try:
        time = datetime.datetime.fromisoformat(upload_time or "")
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=datetime.UTC)
