"""What the operator's package rules leave of a PyPI index."""

import datetime
from collections.abc import Iterator
from dataclasses import replace

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from services.executor.egress.ecosystems.port import PackageRules
from services.executor.egress.ecosystems.pypi_index import DroppedFile, IndexFile, ProjectIndex
from services.executor.egress.ecosystems.pypi_paths import normalise_name

POLICY = "policy: "

_SDIST_SUFFIXES = (".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz", ".tar.Z")


def apply_rules(index: ProjectIndex, rules: PackageRules) -> ProjectIndex:
    """The index without the files that the rules refuse, each of which is dropped with the reason `policy: ...`."""
    files = []
    dropped = list(index.dropped)
    versions = set()
    for file in index.files:
        version = release_version(file.filename, index.name)
        reason = _refusal(index.name, file, version, rules)
        if reason is None:
            files.append(file)
            versions.add(version)
        else:
            dropped.append(DroppedFile(filename=file.filename, reason=f"{POLICY}{reason}"))
    return replace(
        index,
        versions=tuple(text for text in index.versions if _version(text) in versions),
        files=tuple(files),
        dropped=tuple(dropped),
    )


def release_version(filename: str, name: str) -> Version | None:
    """The version in the name of a wheel or a source archive of the project `name`; None if there is none."""
    return next((version for project, version in releases(filename) if project == name), None)


def releases(filename: str) -> Iterator[tuple[str, Version]]:
    """Every project (normalised) and version that a file name can stand for: old source archives leave a choice."""
    try:
        project, version, _, _ = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        pass
    else:
        yield str(project), version
    suffix = next((suffix for suffix in _SDIST_SUFFIXES if filename.endswith(suffix)), None)
    parts = filename.removesuffix(suffix).split("-") if suffix is not None else []
    for split in range(len(parts) - 1, 0, -1):
        version_or_none = _version("-".join(parts[split:]))
        if version_or_none is not None:
            yield normalise_name("-".join(parts[:split])), version_or_none


def _refusal(name: str, file: IndexFile, version: Version | None, rules: PackageRules) -> str | None:
    if version is None:
        # Eggs, installers: what cannot be judged is refused, and no package manager asks for it.
        return "no version in the file name"
    return rules.refusal(name, str(version), _moment(file.upload_time))


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _moment(text: str | None) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(text) if text is not None else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None
