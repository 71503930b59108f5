"""Which file of a release a lock names as the installed one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.resolver.model import Context, Lockfile, Target
from services.resolver.plan import plan, render_lock

TOOLCHAIN = {"python": "3.13.5"}
ADDRESS = "https://files.example/packages"
SOURCE = "thing-1.0.tar.gz"
PURE = "thing-1.0-py2.py3-none-any.whl"
LINUX = "thing-1.0-cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
STABLE = "thing-1.0-cp38-abi3-manylinux_2_28_x86_64.whl"
ARM = "thing-1.0-cp313-cp313-manylinux_2_17_aarch64.whl"
WINDOWS = "thing-1.0-cp313-cp313-win_amd64.whl"
LINUX_TAGS = ["cp313-cp313-manylinux_2_17_x86_64", "cp313-cp313-manylinux2014_x86_64"]
BUILT_TAGS = ["cp313-cp313-linux_x86_64"]


def lock(files: list[str], *, key: str = "url") -> bytes:
    """A native lock in which the hash of each file is its number."""
    tables = [
        f'{{ {key} = "{ADDRESS}/{name}", hashes = {{ sha256 = "{number:064x}" }} }}'
        for number, name in enumerate(files)
    ]
    wheels = ", ".join(table for table, name in zip(tables, files, strict=True) if name.endswith(".whl"))
    sources = "".join(
        f"sdist = {table}\n" for table, name in zip(tables, files, strict=True) if not name.endswith(".whl")
    )
    head = 'lock-version = "1.0"\ncreated-by = "uv"\n[[packages]]\nname = "thing"\nversion = "1.0"\n'
    return f"{head}{sources}wheels = [{wheels}]\n".encode()


def inventory(tags: list[str], build: str | None = None, machine: str = "x86_64") -> bytes:
    package: dict[str, Any] = {
        "name": "thing", "version": "1.0", "license_expression": None, "license": None, "classifiers": [],
        "requires_dist": [], "missing": [], "modified": [], "tags": tags, "build": build,
    }  # fmt: skip
    document = {"format": 1, "ecosystem": "python", "machine": machine, "packages": [package]}
    return json.dumps(document).encode()


def named(files: list[str], installed: bytes, **fields: str) -> list[str]:
    """The files whose hashes are in the normalised lock."""
    rendered = render_lock("python", ["thing"], lock(files, **fields), installed, TOOLCHAIN, registry_urls={})
    (package,) = json.loads(rendered.content)["packages"]
    return [files[int(item.removeprefix("sha256:"), 16)] for item in package["hashes"]]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (LINUX_TAGS, LINUX),
        # The order of a file's tags, and what they are compressed to, is the builder's taste.
        (LINUX_TAGS[::-1], LINUX),
        (["cp38-abi3-manylinux_2_28_x86_64"], STABLE),
        (["py2-none-any", "py3-none-any"], PURE),
        (["py2.py3-none-any"], PURE),
    ],
)
def test_installed_wheel_is_named_alone(tags: list[str], expected: str) -> None:
    assert named([SOURCE, PURE, LINUX, STABLE, ARM, WINDOWS], inventory(tags)) == [expected]


def test_wheel_that_is_uploaded_later_changes_no_byte() -> None:
    before, after = (
        render_lock("python", ["thing"], lock(files), inventory(LINUX_TAGS), TOOLCHAIN, registry_urls={}).content
        for files in ([SOURCE, LINUX], [SOURCE, LINUX, STABLE, ARM, PURE])
    )
    assert before == after


@pytest.mark.parametrize("wheels", [[], [ARM], [WINDOWS, ARM]])
def test_source_is_named_if_no_wheel_fits(wheels: list[str]) -> None:
    assert named([*wheels, SOURCE], inventory(BUILT_TAGS)) == [SOURCE]


def test_build_number_tells_equal_tags_apart() -> None:
    files = [PURE, PURE.replace("1.0-", "1.0-1-"), PURE.replace("1.0-", "1.0-2b-")]
    tags = ["py2-none-any", "py3-none-any"]
    assert [named(files, inventory(tags, build)) for build in (None, "1", "2b")] == [[name] for name in files]


@pytest.mark.parametrize(
    ("files", "tags", "machine"),
    [
        # A wheel that fits would have been installed, whatever was written into it.
        ([SOURCE, LINUX], BUILT_TAGS, "x86_64"),
        ([SOURCE, PURE], ["py3-none-any"], "x86_64"),
        ([SOURCE, LINUX], [], "x86_64"),
        ([SOURCE, LINUX], ["-".join(["a" + ".a" * 60] * 3)], "x86_64"),
        ([SOURCE, "thing-1.0-no_wheel.whl"], BUILT_TAGS, "x86_64"),
        ([SOURCE, "thing-1.0-" + "-".join(["a" + ".a" * 30] * 3) + ".whl"], BUILT_TAGS, "x86_64"),
        # It cannot have been installed on this machine: its metadata lies.
        ([LINUX, WINDOWS], ["cp313-cp313-win_amd64"], "x86_64"),
        # Who does not say what machine it was may have had any.
        ([SOURCE, ARM], BUILT_TAGS, ""),
    ],
)
def test_all_are_named_if_it_cannot_be_told(files: list[str], tags: list[str], machine: str) -> None:
    assert named(files, inventory(tags, machine=machine)) == files


@pytest.mark.parametrize("name", ["pylock.toml", "uv.lock", "poetry.lock", "pdm.lock", "qila.lock.json"])
def test_sandbox_made_from_a_lock_has_the_same_lock(name: str) -> None:
    files = [SOURCE, PURE, LINUX, STABLE, ARM, WINDOWS]
    first = render_lock("python", ["thing"], lock(files), inventory(LINUX_TAGS), TOOLCHAIN, registry_urls={}).content
    tables = ", ".join(f'{{ file = "{file}", hash = "sha256:{place:064x}" }}' for place, file in enumerate(files))
    package = '[[package]]\nname = "thing"\nversion = "1.0"\n'
    root = '[[package]]\nname = "p"\nsource = { virtual = "." }\ndependencies = [{ name = "thing" }]\n'
    contents = {
        "pylock.toml": lock(files),
        "uv.lock": f'version = 1\n{root}{package}source = {{ registry = "x" }}\nwheels = [{tables}]\n'.encode(),
        "poetry.lock": f'{package}files = [{tables}]\n[metadata]\nlock-version = "2.1"\n'.encode(),
        "pdm.lock": f'[metadata]\nlock_version = "4.5.0"\n{package}files = [{tables}]\n'.encode(),
        "qila.lock.json": first,
    }
    given = Lockfile(name=name, content=contents[name])
    planned = plan(
        {"main.py": b"import thing\n"}, ["main.py"], Target(), Context(toolchain=TOOLCHAIN, given_lock=given)
    )
    (staged,) = planned.staged
    assert (ARM.encode() in staged.content, WINDOWS.encode() in staged.content) == (name != "qila.lock.json", False)
    direct = [item.specifier for item in planned.requirements]
    again = render_lock("python", direct, staged.content, inventory(LINUX_TAGS), TOOLCHAIN, registry_urls={}).content
    assert again == first


def test_names_are_those_of_the_requirement_below_them() -> None:
    one, other, third = (f"sha256:{number:064x}" for number in range(3))
    content = f"# {one} {PURE}\nother==1 --hash={one}\nthing==1.0 --hash={other} --hash={third}\n".encode()
    document = json.loads(inventory(["py2-none-any", "py3-none-any"]))
    document["packages"].append(document["packages"][0] | {"name": "other", "version": "1"})
    installed = json.dumps(document).encode()
    rendered = render_lock("python", ["thing"], content, installed, TOOLCHAIN, registry_urls={})
    assert [package["hashes"] for package in json.loads(rendered.content)["packages"]] == [[one], [other, third]]


@pytest.mark.parametrize("odd", ["x\\nevil==1", "a b.whl", "", "../", "é.whl"])
def test_name_that_is_none_is_in_no_comment(odd: str) -> None:
    package = '[[package]]\nname = "thing"\nversion = "1.0"\n'
    tables = ", ".join(
        f'{{ file = "{name}", hash = "sha256:{place:064x}" }}' for place, name in enumerate([LINUX, odd])
    )
    content = f'{package}files = [{tables}]\n[metadata]\nlock-version = "2.1"\n'.encode()
    given = Lockfile(name="poetry.lock", content=content)
    planned = plan(
        {"main.py": b"import thing\n"}, ["main.py"], Target(), Context(toolchain=TOOLCHAIN, given_lock=given)
    )
    hashes = " ".join(f"--hash=sha256:{place:064x}" for place in range(2))
    assert [file.content.decode() for file in planned.staged] == [f"thing==1.0 {hashes}\n"]


@pytest.mark.parametrize("key", ["name", "url", "path"])
def test_file_name_may_stand_in_any_of_three_places(key: str) -> None:
    assert named([SOURCE, PURE, LINUX], inventory(LINUX_TAGS), key=key) == [LINUX]
