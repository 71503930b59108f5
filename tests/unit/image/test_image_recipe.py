"""The same recipe has the same tag; any change that reaches the image has another."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.image.recipe import IMAGE_PARTS, image_tag, recipe_files, toolchains_tag


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    files = {
        "sandbox/image/Dockerfile": "FROM x",
        "sandbox/image/toolchains/packages": "gcc",
        "sandbox/image/requirements.txt": "uv==1",
        "sandbox/image/node-packages.toml": "",
        "sandbox/sandboxd/__main__.py": "pass",
    }
    for name, content in files.items():
        path = tmp_path / "one" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "one"


def test_a_copy_elsewhere_with_leftovers_of_tools_has_the_same_tag(checkout: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(checkout, tmp_path / "two"))
    leftover = copy / "sandbox/sandboxd/__pycache__/__main__.cpython-313.pyc"
    leftover.parent.mkdir()
    leftover.write_bytes(b"x")
    (copy / "sandbox/image/Dockerfile").chmod(0o600)
    assert image_tag(copy) == image_tag(checkout)
    assert re.fullmatch(r"qila-sandbox:[0-9a-f]{16}", image_tag(copy))


def rename(checkout: Path) -> None:
    (checkout / "sandbox/image/Dockerfile").rename(checkout / "sandbox/image/Containerfile")


def make_executable(checkout: Path) -> None:
    (checkout / "sandbox/image/Dockerfile").chmod(0o755)


def move_a_byte_to_the_next_file(checkout: Path) -> None:
    (checkout / "sandbox/image/Dockerfile").write_text("FROM ")
    (checkout / "sandbox/image/requirements.txt").write_text("xuv==1")


@pytest.mark.parametrize("change", [rename, make_executable, move_a_byte_to_the_next_file])
def test_a_change_has_another_tag(checkout: Path, change: Callable[[Path], None]) -> None:
    before = image_tag(checkout)
    change(checkout)
    assert image_tag(checkout) != before


def test_a_change_of_sandboxd_leaves_the_toolchains_alone(checkout: Path) -> None:
    image, toolchains = image_tag(checkout), toolchains_tag(checkout)
    (checkout / "sandbox/sandboxd/__main__.py").write_text("print()")
    assert image_tag(checkout) != image
    assert toolchains_tag(checkout) == toolchains


def test_another_pin_of_a_package_manager_has_other_toolchains(checkout: Path) -> None:
    toolchains = toolchains_tag(checkout)
    (checkout / "sandbox/image/node-packages.toml").write_text("[[package]]")
    assert toolchains_tag(checkout) != toolchains


def test_a_checkout_without_sandboxd_is_refused(checkout: Path) -> None:
    shutil.rmtree(checkout / "sandbox/sandboxd")
    with pytest.raises(FileNotFoundError):
        image_tag(checkout)


def test_files_come_with_forward_slashes_and_sorted(checkout: Path) -> None:
    names = [name for name, _ in recipe_files(checkout, IMAGE_PARTS)]
    assert names == sorted(names)
    assert "sandbox/sandboxd/__main__.py" in names
