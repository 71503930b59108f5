"""What the sandbox's own Gradle is asked about a build that cannot be read without running it.

It runs in the sandbox as the install's user, on copies of the build's files, with a home of its own that is removed
with them; what it leaves is a stranger's text (see `gradle_answer`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.resolver.errors import ManifestError, ToolchainError
from services.resolver.fingerprint import fingerprint
from services.resolver.java.gradle import SETTINGS
from services.resolver.java.gradle_age import demands_of, order_of
from services.resolver.java.gradle_dependencies import FORMS
from services.resolver.java.installer import JAVA
from services.resolver.java.needs import ECOSYSTEM
from services.resolver.java.table import DATA
from services.resolver.model import Launch, Plan, Source, StagedFile, Step, StepKind
from services.resolver.paths import join

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.resolver.java.gradle_dependencies import UnreadableBuildError
    from services.resolver.model import Context

TOOL = "gradle"
ANSWER, INIT_SCRIPT, BUILD, HOME = "declared.json", "declared.gradle", "program", "gradle-home"
MAX_FILES = 2_000
MAX_PATH = 1_000
MAX_BYTES = 2 * 1024 * 1024
# Sources and resources of programs are none of a build's declarations.
LOGIC_SUFFIXES = (".gradle", ".kts", ".properties", ".toml")
SOURCES = re.compile(r"(?:^|/)src/")
# Every name is the full one, as this Gradle passes over an init script whose name is not. Java's own idea of a home is
# that of the password file, which outlives an install.
COMMAND = (
    f'exec {" ".join(JAVA)} --add-opens java.base/java.lang=ALL-UNNAMED -Duser.home="$PWD/{HOME}" '
    "-classpath /usr/share/gradle/lib/gradle-launcher-$0.jar org.gradle.launcher.GradleMain "
    f'--no-daemon --quiet --gradle-user-home "$PWD/{HOME}" --project-dir "$PWD/{BUILD}" '
    f'--init-script "$PWD/{INIT_SCRIPT}" "-Dqila.declared=$PWD/{ANSWER}" qilaDeclared'
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What Gradle is asked: the build's root, and its files by their paths in the workspace."""

    root: str
    files: Mapping[str, bytes]
    key: str
    version: str
    cause: UnreadableBuildError

    def plan(self) -> Plan:
        """The steps that answer it, in the place of a plan that cannot be made yet."""
        staged = [
            StagedFile(path=join(BUILD, _below(path, self.root)), content=content)
            for path, content in self.files.items()
        ]
        # Without settings of its own, Gradle would look for some above.
        if not any(join(self.root, name) in self.files for name in SETTINGS):
            staged.append(StagedFile(path=join(BUILD, SETTINGS[0]), content=b"\n"))
        staged.append(StagedFile(path=INIT_SCRIPT, content=_init_script()))
        step = Step(kind=StepKind.SOLVE, argv=("/bin/sh", "-c", COMMAND, self.version))
        return Plan(
            ecosystem=ECOSYSTEM,
            source=Source.MANIFEST,
            launch=Launch(argv=()),
            manifests=tuple(sorted(self.files)),
            staged=tuple(staged),
            steps=(step,),
            fingerprint=self.key,
            native_lock=ANSWER,
            preliminary=True,
        )


@dataclass(kw_only=True, eq=False)
class UnansweredError(Exception):
    """A plan cannot be made before Gradle has answered."""

    question: Question


def question_of(files: Mapping[str, bytes], root: str, context: Context, cause: UnreadableBuildError) -> Question:
    """What to ask; raises ManifestError with the line where the sandbox's Gradle cannot be asked."""
    version = context.toolchain.get(TOOL, "")
    if not order_of(version):
        raise _refused(cause, "the sandbox has no Gradle")
    if not context.options.scripts:
        raise _refused(cause, "the operator of this installation has no code run by installs")
    chosen = {path: content for path, content in sorted(files.items()) if _is_of_build(_below(path, root), path, root)}
    if len(chosen) > MAX_FILES or sum(map(len, chosen.values())) > MAX_BYTES:
        raise _refused(cause, f"the build has more than {MAX_FILES} files, or {MAX_BYTES} bytes")
    scripts = [path for path in chosen if path.endswith((".gradle", ".gradle.kts"))]
    wanted = [item for item in demands_of(files, root, scripts) if order_of(item.version) > order_of(version)]
    if wanted:
        most = max(wanted, key=lambda item: order_of(item.version))
        raise ToolchainError(
            path=cause.path,
            line=cause.line,
            reason=f"{cause.reason}, and this Gradle, {version}, is too old: "
            f"{most.what} in {most.path}:{most.line} needs {most.version}; {FORMS}",
            tool=TOOL,
            word="Gradle",
            fits=lambda other: all(order_of(item.version) <= order_of(other) for item in wanted),
        )
    key = fingerprint(
        ecosystem=ECOSYSTEM,
        manifests={_below(path, root): content for path, content in chosen.items()},
        requirements=[],
        toolchain={tool: context.toolchain[tool] for tool in ("java", TOOL)},
        platform=context.platform,
        package_policy=context.package_policy,
        settings={"question": (COMMAND, _init_script().decode())},
    )
    return Question(root=root, files=chosen, key=key, version=version, cause=cause)


def is_build_file(path: str) -> bool:
    """Whether Gradle may read a file when it evaluates a build."""
    directories = path.split("/")[:-1]
    # What Gradle keeps in `.gradle`, and what a build made, changes with each run of it.
    if len(path) > MAX_PATH or any(name.endswith(".gradle") for name in directories):
        return False
    if "build" in directories and not path.endswith((".gradle", ".kts")):
        return False
    if "buildSrc" in directories:
        return path.endswith((*LOGIC_SUFFIXES, ".groovy", ".java"))
    return path.endswith(LOGIC_SUFFIXES) and not SOURCES.search(path)


def _is_of_build(below: str, path: str, root: str) -> bool:
    inside = not root or path.startswith(f"{root}/")
    return inside and is_build_file(below)


def _below(path: str, root: str) -> str:
    return path.removeprefix(f"{root}/") if root else path


def _refused(cause: UnreadableBuildError, why: str) -> ManifestError:
    return ManifestError(path=cause.path, line=cause.line, reason=f"{cause.reason}, and {why}: {FORMS}")


def _init_script() -> bytes:
    return DATA.joinpath(INIT_SCRIPT).read_bytes()
