"""Names the sandbox image by what it is made from: the same recipe has the same tag on every machine."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
IMAGE_NAME = "qila-sandbox"
TOOLCHAINS_NAME = "qila-toolchains"
# The recipe hash of an image, so that one of another name can be told to be from this recipe.
RECIPE_LABEL = "qila.recipe"
DIGEST_LENGTH = 16

IMAGE_PARTS = ("sandbox/image", "sandbox/sandboxd")
TOOLCHAINS_PARTS = (
    "sandbox/image/toolchains",
    "sandbox/image/requirements.txt",
    "sandbox/image/node-packages.toml",
)
JDK_PARTS = ("sandbox/image/jdk",)
# What tools leave behind is no part of a recipe.
LEFT_OUT = frozenset({"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"})


def recipe_files(root: Path, parts: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Every file of a recipe as (path relative to `root`, with forward slashes, file), always in the same order.

    Raises FileNotFoundError for a part that does not exist.
    """
    found: dict[str, Path] = {}
    for part in parts:
        start = root / part
        if not start.exists():
            raise FileNotFoundError(start)
        for path in [start] if start.is_file() else start.rglob("*"):
            relative = path.relative_to(root)
            if path.is_file() and path.suffix != ".pyc" and LEFT_OUT.isdisjoint(relative.parts):
                found[relative.as_posix()] = path
    return iter(sorted(found.items()))


def is_executable(path: Path) -> bool:
    """The only bit of a file's mode that a checkout keeps."""
    return bool(path.stat().st_mode & 0o100)


def recipe_digest(root: Path, parts: tuple[str, ...]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 over names, executable bits and contents."""
    digest = hashlib.sha256()
    for name, path in recipe_files(root, parts):
        content = path.read_bytes()
        digest.update(f"{name}\0{int(is_executable(path))}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:DIGEST_LENGTH]


def image_tag(root: Path = REPOSITORY_ROOT, suffix: str = "") -> str:
    """The tag of the sandbox image that the checkout at `root` describes, such as `qila-sandbox:0123456789abcdef`.

    `suffix` names the toolchains that take the place of the recipe's own.
    """
    return f"{IMAGE_NAME}:{recipe_digest(root, IMAGE_PARTS)}{suffix}"


def toolchains_tag(root: Path = REPOSITORY_ROOT, suffix: str = "") -> str:
    """The tag of the lower half of that image."""
    return f"{TOOLCHAINS_NAME}:{recipe_digest(root, TOOLCHAINS_PARTS)}{suffix}"


def recipe_of(tag: str) -> str:
    """The recipe's digest in a tag of either half, which is the value of its label."""
    return tag.partition(":")[2][:DIGEST_LENGTH]
