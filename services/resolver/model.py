"""What goes into a plan and what comes out of it: the same words for every ecosystem.

Paths are relative to the workspace, with `/` between parts. Lines and columns count from 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Source(StrEnum):
    """Where the requirements of a plan come from."""

    MANIFEST = "manifest"
    DETECTED = "detected"
    NONE = "none"


class OriginKind(StrEnum):
    """What makes a requirement necessary."""

    MANIFEST = "manifest"
    IMPORT = "import"


class StepKind(StrEnum):
    """What a step of an install does."""

    SOLVE = "solve"
    INSTALL = "install"


class NoticeKind(StrEnum):
    """What a person should know although the plan stands."""

    BROKEN_FILE = "broken_file"
    ALIAS_USED = "alias_used"
    NOT_ON_THIS_PLATFORM = "not_on_this_platform"
    PYTHON_2_MODULE = "python_2_module"
    REMOVED_MODULE = "removed_module"
    MANIFEST_IGNORED = "manifest_ignored"
    DYNAMIC_DEPENDENCIES = "dynamic_dependencies"


class ProblemKind(StrEnum):
    """Why a file that a planner wanted is left out."""

    FILE_TOO_LARGE = "file_too_large"
    TOO_MANY_FILES = "too_many_files"
    TOO_MANY_BYTES = "too_many_bytes"


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkspaceFile:
    """A regular file of the workspace; size in bytes."""

    path: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionProblem:
    """Files that will not be read: the first one's path, how many, and the bound that they exceed."""

    kind: ProblemKind
    path: str
    count: int
    limit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The files that the planners want to read."""

    paths: tuple[str, ...]
    problems: tuple[SelectionProblem, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What is to be run: a program file or, if that is empty, the workspace's own entry point.

    `language` only breaks ties.
    """

    program: str = ""
    args: tuple[str, ...] = ()
    language: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a plan depends on beside the workspace.

    `toolchain` maps a tool to its full version ("python": "3.13.5"); `previous_lock` is the native lock of the last
    install, whose versions are preferred.
    """

    toolchain: Mapping[str, str]
    platform: str = "linux/amd64"
    package_policy: str = ""
    previous_lock: bytes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """One place that asks for a requirement."""

    kind: OriginKind
    path: str
    line: int
    module: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """A requirement in the ecosystem's own notation, and all the places that ask for it."""

    specifier: str
    name: str
    origins: tuple[Origin, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportFinding:
    """An import that is not installed; `suggestion` is the distribution that is known to provide it, or empty."""

    module: str
    path: str
    line: int
    suggestion: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """Something that a person should know; the subject is a file, a module or a package, as the kind says."""

    kind: NoticeKind
    path: str = ""
    line: int = 0
    subject: str = ""
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedFile:
    """A file of the install's working directory."""

    path: str
    content: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One command of an install, run in the stage directory as the install user."""

    kind: StepKind
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """How the program starts; `working_directory` is relative to the workspace, empty for its root."""

    argv: tuple[str, ...]
    working_directory: str = ""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is needed, why, how it is installed and how the program is launched.

    Without anything to install, `fingerprint` and `environment` are empty and `steps` and `staged` hold nothing.
    `environment` is the absolute path in the sandbox of the generation that the steps fill; `native_lock` is the path
    of the ecosystem's own lock, relative to the stage directory, as it is after the last step. `inventory_argv` prints
    the inventory of the environment as JSON; `compile_argv` compiles what it holds, and nobody waits for it.
    """

    ecosystem: str
    source: Source
    launch: Launch
    manifests: tuple[str, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    undeclared: tuple[ImportFinding, ...] = ()
    unknown: tuple[ImportFinding, ...] = ()
    optional_skipped: tuple[ImportFinding, ...] = ()
    notices: tuple[Notice, ...] = ()
    staged: tuple[StagedFile, ...] = ()
    steps: tuple[Step, ...] = ()
    fingerprint: str = ""
    environment: str = ""
    native_lock: str = ""
    inventory_argv: tuple[str, ...] = ()
    compile_argv: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageEvent:
    """One line of an installer that tells about a package.

    `action` is `downloading`, `building`, `built`, `installed` or `removed`; `version` is empty where the installer
    does not say it.
    """

    action: str
    name: str
    version: str = ""
    size: str = ""


class FailureReason(StrEnum):
    """Why an install failed."""

    NOT_FOUND = "not_found"
    NO_SOLUTION = "no_solution"
    BUILD_FAILED = "build_failed"
    NETWORK_DENIED = "network_denied"
    POLICY_DENIED = "policy_denied"
    TIMED_OUT = "timed_out"
    OUT_OF_SPACE = "out_of_space"


@dataclass(frozen=True, kw_only=True, slots=True)
class InstallFailure:
    """Why an install failed, in the installer's own words (cut), and the packages that it names."""

    reason: FailureReason
    detail: str
    packages: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedPackage:
    """One installed package, as the normalised lock tells it."""

    purl: str
    name: str
    version: str
    hashes: tuple[str, ...]
    license: str
    direct: bool
    license_text: str = ""
    required_by: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedLock:
    """The canonical bytes of qila.lock.json and the number of packages in it."""

    content: bytes
    package_count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class InstallReport:
    """What an installer's output tells; `failure` is set if the step failed."""

    packages: tuple[PackageEvent, ...]
    failure: InstallFailure | None = None
