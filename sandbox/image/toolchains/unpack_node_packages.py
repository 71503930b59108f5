"""Puts the package managers and tools that come from npm where a system would have them.

Usage: unpack_node_packages.py TARBALLS ROOT
"""

import shutil
import sys
import tarfile
from pathlib import Path

LINKS = {
    "yarn": "../../lib/qila/yarn/bin/yarn.js",
    "pnpm": "../../lib/qila/pnpm/pnpm",
    "pnpx": "../../lib/qila/pnpm/pnpm",
    "tsx": "../../lib/qila/tsx/dist/cli.mjs",
}


def unpack(tarball: Path, target: Path) -> None:
    """Moves the one directory of a tarball to `target`."""
    scratch = target.with_name(target.name + ".unpacking")
    with tarfile.open(tarball) as archive:
        archive.extractall(scratch, filter="data")
    (content,) = scratch.iterdir()
    content.rename(target)
    scratch.rmdir()


def unpack_pnpm(tarballs: Path, target: Path) -> None:
    """The executable for this machine in place of the script that would look for one."""
    unpack(tarballs / "pnpm.tgz", target)
    (executable,) = tarballs.glob("@pnpm+exe.*.tgz")
    unpack(executable, target.with_name("pnpm.executable"))
    for name in ("pn", "pnpx", "pnx", "install.js"):
        (target / name).unlink()
    (target.with_name("pnpm.executable") / "pnpm").replace(target / "pnpm")
    shutil.rmtree(target.with_name("pnpm.executable"))


def unpack_tsx(tarballs: Path, target: Path) -> None:
    """With the compiler that it needs, and the compiler's executable for this machine, among its own modules."""
    unpack(tarballs / "tsx.tgz", target)
    modules = target / "node_modules"
    (modules / "@esbuild").mkdir(parents=True)
    unpack(tarballs / "esbuild.tgz", modules / "esbuild")
    (executable,) = tarballs.glob("@esbuild+*.tgz")
    package = modules / "@esbuild" / executable.stem.removeprefix("@esbuild+")
    unpack(executable, package)
    (package / "bin/esbuild").chmod(0o755)


def main(tarballs: Path, root: Path) -> None:
    """Unpacks everything below `root`."""
    libraries, executables = root / "usr/lib/qila", root / "usr/local/bin"
    libraries.mkdir(parents=True, exist_ok=True)
    executables.mkdir(parents=True, exist_ok=True)
    unpack(tarballs / "@yarnpkg+cli-dist.tgz", libraries / "yarn")
    unpack_pnpm(tarballs, libraries / "pnpm")
    unpack_tsx(tarballs, libraries / "tsx")
    for name, target in LINKS.items():
        (executables / name).symlink_to(target)
        (executables / name).resolve().chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
