"""The command that starts a program, which compiles it first unless that has been done."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from services.resolver.java.installer import SUPPORT
from services.resolver.java.target import JUNIT, JUNIT_4
from services.resolver.model import Launch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.resolver.java.target import Program
    from services.resolver.model import Target

RUN = f"{SUPPORT}/run"
CONSOLE = (
    "org.junit.platform.console.ConsoleLauncher", "execute", "--disable-banner", "--disable-ansi-colors",
    "--details=tree",
)  # fmt: skip


def launch_of(program: Program, target: Target, environment: str, files: Mapping[str, bytes], release: int) -> Launch:
    """How the program starts, with a JDK of this release.

    An empty environment is named too: the program must not see an older one.
    """
    variables = {"QILA_JAVA_ENV": environment}
    if target.command:
        # For the client's own `java` and `javac`, which look here unless they are told otherwise.
        variables["CLASSPATH"] = f".:{environment}/lib/*" if environment else "."
        return Launch(argv=target.command, env=variables)
    places = ":".join(program.places)
    options = f"--enable-preview --release {release}" if program.preview else ""
    digest = _digest(program, f"{places}\t{environment}\t{options}\t{release}\n", files)
    class_path = ":".join([*program.resources, *program.jars])
    argv = (RUN, digest, places, class_path, options, *_what(program), *target.args)
    return Launch(argv=argv, env=variables)


def _what(program: Program) -> tuple[str, ...]:
    """The class that is started, and what it is told."""
    if not program.runner:
        return (program.main_class,)
    if program.runner == JUNIT:
        if program.path:
            return (*CONSOLE, *(f"--select-class={name}" for name in program.test_classes))
        return (*CONSOLE, "--scan-classpath")
    if program.runner == JUNIT_4:
        return ("org.junit.runner.JUnitCore", *program.test_classes)
    return ("org.testng.TestNG", "-usedefaultlisteners", "false", "-testclass", ",".join(program.test_classes))


def _digest(program: Program, header: str, files: Mapping[str, bytes]) -> str:
    """What the sandbox's Compile makes of the same: all that decides the classes."""
    text = header
    for path in sorted(program.sources):
        text += f"{path}\t{hashlib.sha256(files[path]).hexdigest()}\n"
    return hashlib.sha256(text.encode()).hexdigest()
