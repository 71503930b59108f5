"""What goes into a plan and what comes out of it: the same words for every ecosystem.

Paths are relative to the workspace, with `/` between parts. Lines and columns count from 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

# The project whose directory is the workspace itself.
ROOT_PROJECT = "."


class Source(StrEnum):
    """Where the requirements of a plan come from."""

    LOCK = "lock"
    MANIFEST = "manifest"
    DETECTED = "detected"
    NONE = "none"


class OriginKind(StrEnum):
    """What makes a requirement necessary."""

    MANIFEST = "manifest"
    IMPORT = "import"
    LOCK = "lock"
    # Added to what the author wrote, because the exec asked for it.
    ADDED = "added"


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
    LOCK_DRIFT = "lock_drift"
    LOCK_NOT_HONOURED = "lock_not_honoured"
    SETTING_IGNORED = "setting_ignored"
    INSTALL_HINT = "install_hint"
    UNUSED_REQUIREMENT = "unused_requirement"
    NAME_CONFUSED = "name_confused"
    NAME_GENERIC = "name_generic"
    NAME_UNKNOWN = "name_unknown"
    INSTALL_SCRIPTS_SKIPPED = "install_scripts_skipped"
    PROJECTS_LEFT_OUT = "projects_left_out"


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

    At most one of `program`, `module` (as in `python -m`) and `script` (as in `npm run`) is set. `command` replaces the
    launch command that would be chosen, and nothing else. `language` only breaks ties; `required_language`, if set, is
    the one that runs it. With `project`, nothing is run: the environment of the project in that directory is planned,
    "." for the workspace itself.
    """

    program: str = ""
    args: tuple[str, ...] = ()
    language: str = ""
    module: str = ""
    script: str = ""
    command: tuple[str, ...] = ()
    required_language: str = ""
    project: str = ""

    @property
    def project_directory(self) -> str:
        """That of the project, as paths of a workspace are written."""
        return "" if self.project == ROOT_PROJECT else self.project


@dataclass(frozen=True, kw_only=True, slots=True)
class Lockfile:
    """A lock from outside the workspace. Its kind shows in its name and, if that says nothing, in its bytes."""

    name: str
    content: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What an exec asks for beside its target.

    `install_missing` adds what is imported and not declared, as far as it is known; `added` holds requirements that a
    failed run showed to be missing. Without `detect`, nothing is installed that no manifest or lock names. `extras` and
    `groups` are those of the manifest. Without `scripts`, no package's own code runs during an install.
    """

    install_missing: bool = False
    detect: bool = True
    added: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    scripts: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What a plan depends on beside the workspace.

    `toolchain` maps a tool to its full version ("python": "3.13.5"); `previous_lock` is the native lock of the last
    install of each ecosystem, whose versions are preferred. `given_lock` is the lock from which the sandbox was made:
    it decides what is installed. `registry_urls` maps the address of a door inside the sandbox to the public
    registry's that it stands for; both end in `/`. `images` maps the name of each image that the installation has to
    its toolchain: it decides nothing, and is for what a person is told. `answers` holds by fingerprint what the steps
    of preliminary plans left.
    """

    toolchain: Mapping[str, str]
    platform: str = "linux/amd64"
    package_policy: str = ""
    previous_locks: Mapping[str, bytes] = field(default_factory=dict)
    given_lock: Lockfile | None = None
    registry_urls: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    answers: Mapping[str, bytes] = field(default_factory=dict)


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
class LockLine:
    """One package of a lock, named as its installer does, and where it stands; `line` is 0 where it is not known."""

    name: str
    version: str
    path: str
    line: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportFinding:
    """An import that nothing declared provides.

    `suggestion` is the requirement that is known to provide it, or empty, and `package` its name as a lock spells it.
    `manifest` is the file to which the text `declaration` is to be added; the file may not be there yet. `note` says
    what was probably meant.
    """

    module: str
    path: str
    line: int
    suggestion: str = ""
    package: str = ""
    manifest: str = ""
    declaration: str = ""
    note: str = ""


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
class Link:
    """A link in the workspace that leads to a directory of the environment, for people and tools that look there."""

    path: str
    directory: str


@dataclass(frozen=True, kw_only=True, slots=True)
class UnmanagedInventory:
    """How to list the packages in a place (an absolute path) where programs install by themselves.

    `argv` prints an inventory as JSON.
    """

    path: str
    argv: tuple[str, ...]


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
    `native_lock_staged` says that `staged` holds the native lock and no step changes it. `lock_lines` are the packages
    of the lock that decides the install, if one does. A `preliminary` plan installs and launches nothing: what the
    program needs is known when its steps have left `native_lock`, which the next plan takes as the context's answer to
    this `fingerprint`. `project` is the directory of the project where all of the
    workspace are planned, else empty.
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
    links: tuple[Link, ...] = ()
    unmanaged: tuple[UnmanagedInventory, ...] = ()
    native_lock_staged: bool = False
    lock_lines: tuple[LockLine, ...] = ()
    project: str = ""
    preliminary: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Plans:
    """The plan of a program, and those of the environments of all other projects of its workspace."""

    program: Plan
    projects: tuple[Plan, ...] = ()


class InstallStage(StrEnum):
    """What an installer is at."""

    RESOLVING = "resolving"
    DOWNLOADING = "downloading"
    BUILDING = "building"
    INSTALLING = "installing"


@dataclass(frozen=True, kw_only=True, slots=True)
class StageProgress:
    """How far an installer is: packages done in this stage, and of how many; a `total` of 0 is not known yet."""

    stage: InstallStage
    done: int = 0
    total: int = 0


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
    """Why an install failed, in the installer's own words (cut), and the packages that it names.

    `hints` are sentences that say what to do, as what an unknown name was probably meant to be.
    """

    reason: FailureReason
    detail: str
    packages: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedPackage:
    """One installed package, as the normalised lock tells it.

    `locations` are the directories in which it lies, relative to the environment, where the ecosystem allows several
    versions of one package; `required_by` holds purls.
    """

    purl: str
    name: str
    version: str
    hashes: tuple[str, ...]
    license: str
    direct: bool
    license_text: str = ""
    required_by: tuple[str, ...] = ()
    locations: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Unmanaged:
    """What programs installed by themselves; `complete` unless an entry could not be read, or is no package."""

    packages: tuple[LockedPackage, ...]
    complete: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedLock:
    """The canonical bytes of qila.lock.json, the number of packages, and the native lock for the world outside."""

    content: bytes
    package_count: int
    native_lock: bytes = b""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstallReport:
    """What an installer's output tells; `failure` is set if the step failed."""

    packages: tuple[PackageEvent, ...]
    failure: InstallFailure | None = None
    stages: tuple[StageProgress, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """What the output of a failed run tells about imports that were not there."""

    missing: tuple[ImportFinding, ...]


class SbomFormat(StrEnum):
    """The published formats of an SBOM, as JSON."""

    CYCLONEDX_1_6 = "cyclonedx_1_6"
    SPDX_2_3 = "spdx_2_3"


@dataclass(frozen=True, kw_only=True, slots=True)
class SbomSubject:
    """The exec whose SBOM is made: when it began, in seconds since 1970 UTC, and what it ran, for a person to read.

    `unmanaged_known` is false where nobody looked what programs had installed by themselves.
    """

    sandbox_id: str
    exec_id: str
    time: int
    program: str = ""
    unmanaged_known: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Sbom:
    """An SBOM's bytes: the same for the same subject and packages."""

    content: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageChange:
    """One package that is not the same in two sets of locks; `before` is None if it was added, `after` if removed."""

    before: LockedPackage | None
    after: LockedPackage | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LockDiff:
    """What differs between two sets of locks, by purl."""

    changes: tuple[PackageChange, ...]
    unchanged_count: int = 0
