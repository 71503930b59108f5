"""What bodies may hold. Rules that the gateway checks itself are not written a second time."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from google.protobuf.duration_pb2 import Duration
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, RootModel, Tag

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway import checks

# Rules that the gateway checks, written down for those who read the schema.
PATH_PATTERN: Final = r"(?!\.{1,2}(/|$))[^/\x00]+(/(?!\.{1,2}(/|$))[^/\x00]+)*"
_PATH_OR_NONE: Final[dict[str, Any]] = {"pattern": f"^({PATH_PATTERN})?$"}
_FILE_NAME: Final[dict[str, Any]] = {"pattern": r"^(?!\.{1,2}$)[^/\x00]+$"}
_OWN_PORTS: Final[dict[str, Any]] = {"not": {"enum": [7480, 7481]}}
_MODULE: Final[dict[str, Any]] = {"pattern": r"^([A-Za-z_]\w*(\.[A-Za-z_]\w*)*)?$", "maxLength": 255}
_NAME: Final = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$"
_LAUNCH: Final[dict[str, Any]] = {"prefixItems": [{"type": "string", "pattern": r"^[^\x00]+$"}]}
_ENV_NAMES: Final[dict[str, Any]] = {"propertyNames": {"pattern": r"^[^=\x00]+$"}}
_TRUE: Final[dict[str, Any]] = {"const": True}
_NOT_TOGETHER: Final[dict[str, Any]] = {
    "not": {
        "anyOf": [
            *(
                {"required": [one, other], "properties": {one: {"minLength": 1}, other: {"minLength": 1}}}
                for one, other in (("filename", "module"), ("filename", "script"), ("module", "script"))
            ),
            *(
                {"required": ["install_missing", other], "properties": {"install_missing": _TRUE, other: opened}}
                for other, opened in (("stdin", _TRUE), ("terminal", {"type": "object"}))
            ),
        ]
    }
}
_MAX_UINT32 = (1 << 32) - 1
MAX_INT64 = (1 << 63) - 1
_NANOS = 10**9
# Each is six strings of JSON, which take room; over gRPC it is 20,000.
MAX_COMPARED_FILES: Final = 16_000
EVENT_ID: Final = r"(ex_[a-z2-7]{26})\.([0-9]{1,18})\.([0-9]{1,9})\.([0-9]{1,18})\.([0-9]{1,18})(?:\.([0-9]{1,18}))?"
EVENT_ID_PATTERN: Final = f"^({EVENT_ID})?$"
SEQUENCE_PATTERN: Final = "^[0-9]{0,18}$"
TRANSFER_PATTERN: Final = "^[A-Za-z0-9_-]{1,64}$"


def _whole(value: Any) -> Any:
    """To JSON 2.0 is an integer too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_whole)
Uint32 = Annotated[int, Field(ge=0, le=_MAX_UINT32), Whole]
Uint64 = Annotated[int, Field(ge=0, le=MAX_INT64), Whole]
ExecId = Annotated[str, Field(pattern="^(ex_[a-z2-7]{26})?$")]
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
PathOrNone = Annotated[str, Field(json_schema_extra=_PATH_OR_NONE)]
Names = Annotated[list[Annotated[str, Field(pattern=_NAME)]], Field(max_length=64)]
SandboxId = Annotated[str, Field(pattern="^sb_[a-z2-7]{26}$")]
Language = Annotated[str, Field(pattern="^([a-z][a-z0-9]{0,31})?$")]
Path = Annotated[str, Field(json_schema_extra={"pattern": f"^{PATH_PATTERN}$"})]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Mode = Literal["registries", "none"]
MODES: dict[Mode, pb.EgressMode.ValueType] = {
    "registries": pb.EGRESS_MODE_REGISTRIES,
    "none": pb.EGRESS_MODE_NONE,
}


class Body(BaseModel):
    """A JSON object without members that nobody knows."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LimitsBody(Body):
    """What bounds a sandbox; what is left out or zero is the installation's default."""

    cpu_millis: Uint32 = 0
    memory_bytes: Uint64 = 0
    pids: Uint32 = 0
    disk_bytes: Uint64 = Field(default=0, description="64 MiB to 1 TiB.")

    def message(self) -> pb.Limits:
        """As the gateway takes it."""
        return pb.Limits(**self.model_dump())


class EgressBody(Body):
    """What a sandbox may reach: reads of the package registries, or nothing."""

    mode: Mode
    hosts: list[str] = Field(default=[], max_length=32, description="Exact names that CONNECT may reach too.")
    install_only: bool = Field(default=False, description="Open while an install runs, for the install alone.")

    def message(self) -> pb.EgressPolicy:
        """As the gateway takes it."""
        return pb.EgressPolicy(mode=MODES[self.mode], hosts=self.hosts, install_only=self.install_only)


class LockBody(Body):
    """A lockfile: its name says of which kind it is."""

    name: str = Field(json_schema_extra=_FILE_NAME, description="qila.lock.json, pylock.toml, package-lock.json, …")
    content: str = Field(description="At most 16 MiB.")

    def message(self) -> pb.Lockfile:
        """As the gateway takes it."""
        return pb.Lockfile(name=self.name, content=self.content.encode())


class CreateSandboxBody(Body):
    """What a sandbox is made with; all of it may be left out."""

    language: Language = Field(default="", description='"python", "node", "go", "java"; breaks ties only.')
    limits: LimitsBody | None = None
    egress: EgressBody | None = None
    lock: LockBody | None = Field(default=None, description="Programs get exactly its versions and hashes.")
    image: str = Field(default="", description="The name of one of /v1/images; the default if left out.")

    def message(self) -> pb.CreateSandboxRequest:
        """As the gateway takes it."""
        return pb.CreateSandboxRequest(
            language=self.language,
            limits=None if self.limits is None else self.limits.message(),
            egress=None if self.egress is None else self.egress.message(),
            lock=None if self.lock is None else self.lock.message(),
            image=self.image,
        )


class TerminalBody(Body):
    """The size of a terminal."""

    rows: Annotated[int, Field(ge=1, le=checks.MAX_TERMINAL_SIZE), Whole]
    columns: Annotated[int, Field(ge=1, le=checks.MAX_TERMINAL_SIZE), Whole]

    def message(self) -> pb.Terminal:
        """As the gateway takes it."""
        return pb.Terminal(rows=self.rows, columns=self.columns)


class ExecOptions(Body):
    """What programs and commands have in common."""

    exec_id: ExecId = Field(default="", description="Chosen by the client, it makes a repeat join the exec.")
    env: Annotated[dict[str, Text], Field(max_length=256, json_schema_extra=_ENV_NAMES)] = {}
    run_timeout: float | None = Field(default=None, ge=0, le=checks.MAX_RUN_SECONDS, description="Seconds.")
    install_timeout: float | None = Field(default=None, ge=0, le=checks.MAX_INSTALL_SECONDS, description="Seconds.")
    output_limit_bytes: Annotated[int, Field(ge=0, le=checks.MAX_OUTPUT_LIMIT), Whole] = 0
    end_at_output_limit: bool = False
    idle_timeout: float | None = Field(
        default=None, ge=1, le=checks.MAX_RUN_SECONDS, description="Seconds without output and input that end the run."
    )
    stdin: bool = Field(default=False, description="The program's input is open, for writeStdin.")
    terminal: TerminalBody | None = Field(default=None, description="It has a terminal; its input is open.")
    merge_output: bool = Field(default=False, description="stderr goes where stdout goes, in the order of the writes.")
    wait: bool = Field(default=True, description="False: the answer comes at once, and the exec goes on.")

    def message(self, sandbox_id: str) -> pb.ExecRequest:
        """As the gateway takes it, without what is run."""
        return pb.ExecRequest(
            sandbox_id=sandbox_id,
            exec_id=self.exec_id,
            env=self.env,
            run_timeout=_duration(self.run_timeout),
            install_timeout=_duration(self.install_timeout),
            output_limit_bytes=self.output_limit_bytes,
            end_at_output_limit=self.end_at_output_limit,
            idle_timeout=_duration(self.idle_timeout),
            stdin=self.stdin,
            terminal=None if self.terminal is None else self.terminal.message(),
            merge_output=self.merge_output,
        )


class ProgramBody(ExecOptions):
    """A program of the workspace; it is found if no filename, module or script says which, and one of them at most."""

    model_config = ConfigDict(json_schema_extra=_NOT_TOGETHER)

    filename: PathOrNone = Field(default="", description="The program; its path in the workspace.")
    module: str = Field(default="", json_schema_extra=_MODULE, description="A module, as `python -m` runs it.")
    script: Annotated[Text, Field(max_length=255)] = Field(
        default="", description="A script of the manifest, as `npm run` runs it."
    )
    args: list[Text] = []
    launch: Annotated[list[Text], Field(json_schema_extra=_LAUNCH)] = Field(
        default=[], description="Replaces the command that launches it."
    )
    working_directory: PathOrNone = Field(default="", description="Where it is launched, in place of Qila's choice.")
    language: Language = Field(default="", description="Which runs it, where several could.")
    install_missing: bool = Field(
        default=False, description="What the manifest forgot is installed too. Not with stdin or a terminal."
    )
    install_all: bool = Field(default=False, description="Every project of the workspace is installed too.")
    no_detection: bool = Field(default=False, description="Nothing that no manifest names is installed.")
    extras: Names = Field(default=[], description="Extras of the manifest.")
    groups: Names = Field(default=[], description="Dependency groups of the manifest.")

    def message(self, sandbox_id: str) -> pb.ExecRequest:
        """As the gateway takes it."""
        request = super().message(sandbox_id)
        program = pb.Program(
            file=self.filename,
            module=self.module,
            script=self.script,
            args=self.args,
            command=self.launch,
            working_directory=self.working_directory,
            language=self.language,
        )
        request.MergeFrom(
            pb.ExecRequest(
                program=program,
                install_missing=self.install_missing,
                install_all=self.install_all,
                no_detection=self.no_detection,
                extras=self.extras,
                groups=self.groups,
            )
        )
        return request


class CommandBody(ExecOptions):
    """A command, run as it is in the sandbox's current environment."""

    command: Annotated[list[Text], Field(min_length=1, json_schema_extra=_LAUNCH)]
    working_directory: PathOrNone = ""

    def message(self, sandbox_id: str) -> pb.ExecRequest:
        """As the gateway takes it."""
        request = super().message(sandbox_id)
        command = pb.Command(argv=self.command, working_directory=self.working_directory)
        request.MergeFrom(pb.ExecRequest(command=command))
        return request


def _kind(document: Any) -> str:
    return "command" if "command" in document else "program"


class ExecBody(
    RootModel[
        Annotated[Annotated[ProgramBody, Tag("program")] | Annotated[CommandBody, Tag("command")], Discriminator(_kind)]
    ]
):
    """A program of the workspace, or, with `command`, a command."""

    model_config = ConfigDict(strict=True, frozen=True)


class SignalBody(Body):
    """What is sent to an exec's process group."""

    signal: Annotated[int, Field(ge=1, le=31, description="As Linux numbers them: 2 is SIGINT, 15 SIGTERM."), Whole]


class MoveBody(Body):
    """From where to where."""

    source: Path
    target: Path
    replace: bool = Field(default=False, description="A file or link at the target gives way.")

    def message(self, sandbox_id: str) -> pb.MoveFileRequest:
        """As the gateway takes it."""
        return pb.MoveFileRequest(sandbox_id=sandbox_id, **self.model_dump())


class DirectoryBody(Body):
    """A directory that is to be."""

    path: Path


class TreeFileBody(Body):
    """A file as the client has it; its path is below the directory that is compared."""

    path: Path
    size: Uint64
    sha256: Sha256
    executable: bool = False

    def message(self) -> pb.TreeFile:
        """As the gateway takes it."""
        return pb.TreeFile(**self.model_dump())


class CompareBody(Body):
    """The files of a tree as the client has them."""

    path: PathOrNone = ""
    files: list[TreeFileBody] = Field(max_length=MAX_COMPARED_FILES, description="Of a larger tree, part by part.")
    ignored_names: list[Annotated[str, Field(min_length=1, max_length=255)]] = Field(
        default=[], max_length=64, description="Directories of these names are not looked into."
    )


class PreviewBody(Body):
    """Which port of a sandbox is to be shown, and for how long."""

    port: Annotated[int, Field(ge=1, le=65535, json_schema_extra=_OWN_PORTS), Whole]
    ttl: float | None = Field(default=None, ge=1, le=checks.MAX_PREVIEW_SECONDS, description="Seconds.")

    def message(self, sandbox_id: str) -> pb.CreatePreviewRequest:
        """As the gateway takes it."""
        return pb.CreatePreviewRequest(sandbox_id=sandbox_id, port=self.port, ttl=_duration(self.ttl))


class ExecReferenceBody(Body):
    """What an exec ran with; without an exec id, the newest of the sandbox that has a lock."""

    sandbox_id: SandboxId
    exec_id: ExecId = ""


class ExecSideBody(Body):
    """A side of a comparison that is what an exec ran with."""

    exec: ExecReferenceBody

    def message(self) -> pb.LockReference:
        """As the gateway takes it."""
        return pb.LockReference(exec=pb.ExecReference(**self.exec.model_dump()))


class LockSideBody(Body):
    """A side of a comparison that is a lockfile."""

    lock: LockBody

    def message(self) -> pb.LockReference:
        """As the gateway takes it."""
        return pb.LockReference(lock=self.lock.message())


class DiffBody(Body):
    """Two sides to compare."""

    before: ExecSideBody | LockSideBody
    after: ExecSideBody | LockSideBody

    def message(self) -> pb.DiffLocksRequest:
        """As the gateway takes it."""
        return pb.DiffLocksRequest(before=self.before.message(), after=self.after.message())


def _duration(seconds: float | None) -> Duration | None:
    if not seconds:
        return None
    duration = Duration()
    duration.FromNanoseconds(round(seconds * _NANOS))
    return duration
