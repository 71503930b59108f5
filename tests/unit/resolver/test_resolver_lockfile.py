from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.resolver.errors import LockError
from services.resolver.lockfile import is_qila_lock, line_of_package, lock_to_json, read_qila_lock
from services.resolver.model import LockedPackage, Lockfile

TOOLCHAIN = {"python": "3.13.5", "uv": "0.9.1"}
HASH = "sha256:" + "a" * 64
WORDS = st.text("abz09-_.", min_size=1, max_size=8)
VERSIONS = st.sampled_from(["1", "1.0", "2.0.1", "10.4.0-rc.1"])


@st.composite
def packages(draw: st.DrawFn) -> LockedPackage:
    name, version = draw(WORDS), draw(VERSIONS)
    return LockedPackage(
        purl=f"pkg:npm/{name}@{version}",
        name=name,
        version=version,
        hashes=tuple(draw(st.lists(st.sampled_from([HASH, "sha512-" + "Ab+/" * 20 + "=="]), max_size=2))),
        license=draw(st.sampled_from(["MIT", "NOASSERTION", "MIT OR Apache-2.0"])),
        license_text=draw(st.text('ab\n"\\é\u2028\x1b', max_size=8)),
        direct=draw(st.booleans()),
        required_by=tuple(f"pkg:npm/{other}@1" for other in draw(st.lists(WORDS, max_size=2))),
        locations=draw(st.sampled_from([(), ("node_modules/a", "node_modules/b/node_modules/a")])),
    )


@given(st.lists(packages(), max_size=8, unique_by=lambda package: package.purl))
def test_what_was_written_is_read_and_written_again_as_it_was(written: list[LockedPackage]) -> None:
    content = lock_to_json("node", written, TOOLCHAIN)
    lock = read_qila_lock(content)
    assert set(lock.packages) == set(written)
    assert (lock.ecosystem, lock.toolchain) == ("node", TOOLCHAIN)
    assert lock_to_json(lock.ecosystem, reversed(lock.packages), lock.toolchain) == content


def package(name: str, version: str = "1.0", **values: Any) -> LockedPackage:
    fields: dict[str, Any] = {"hashes": (HASH,), "license": "MIT", "direct": True}
    return LockedPackage(purl=f"pkg:pypi/{name}@{version}", name=name, version=version, **(fields | values))


LOCK = lock_to_json("python", [package("aa"), package("bb", required_by=("pkg:pypi/aa@1.0",))], TOOLCHAIN)


def number_of_line(content: bytes, part: str) -> int:
    return next(number for number, line in enumerate(content.decode().splitlines(), start=1) if part in line)


def test_line_of_a_package_is_that_of_its_purl_and_not_of_who_requires_it() -> None:
    assert line_of_package(LOCK, "pkg:pypi/bb@1.0") == number_of_line(LOCK, '"purl": "pkg:pypi/bb@1.0"')
    assert line_of_package(LOCK, "pkg:pypi/aa@1.0") == number_of_line(LOCK, '"purl": "pkg:pypi/aa@1.0"')
    assert line_of_package(LOCK, "pkg:pypi/cc@1.0") == 0
    assert line_of_package(json.dumps(json.loads(LOCK)).encode(), "pkg:pypi/bb@1.0") == 1


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ('"name": "bb"', '"name": 7', '"name": 7'),
        ('"version": "1.0"', '"version": "1.1"', '"version": "1.1"'),
        ('"direct": true', '"direct": 1', '"direct": 1'),
        ('"license": "MIT"', '"licence": "MIT"', '"licence"'),
        ('"name": "aa"', '"name": "a\\u0000a"', '"name": "a\\u0000a"'),
        (HASH, "md5", '"hashes"'),
        ("pkg:pypi/bb@1.0", "pkg:pypi/b b@1.0", "b b@1.0"),
        ("pkg:pypi/bb@1.0", "pkg:pypi/aa@1.0", None),
        ('"pkg:pypi/bb@1.0"', '"pkg:pypi//@1.0"', '"pkg:pypi//@1.0"'),
        ('"format": 1', '"format": 2', '"format"'),
        ('"format": 1', '"format": true', '"format"'),
        ('"direct": true,', '"direct": true,\n      "locations": ["../x"],', '"locations"'),
        ('"python": "3.13.5"', '"python": 3', '"toolchain"'),
    ],
)
def test_what_is_not_as_it_should_be_is_named_by_line(old: str, new: str, part: str | None) -> None:
    content = LOCK.decode().replace(old, new).encode()
    assert content != LOCK
    with pytest.raises(LockError) as caught:
        read_qila_lock(content, "x.json")
    assert caught.value.name == "x.json"
    if part:
        assert caught.value.line == number_of_line(content, part)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", 1),
        (b"{\n\n]", 3),
        (b"{\n\xff", 2),
        (b"[" * 200_000, 0),
        (b"[]", 1),
        (b'{"format": 1, "ecosystem": "x", "toolchain": {}, "packages": [NaN]}', 0),
        (b'{"format": 1, "format": 1}', 0),
        (b'{"format": ' + b"1" * 10_000 + b"}", 0),
        (b'{"format": 1, "ecosystem": "x", "toolchain": {}, "packages": [\n\n3]}', 3),
    ],
)
def test_hostile_lock_is_refused(content: bytes, line: int) -> None:
    with pytest.raises(LockError) as caught:
        read_qila_lock(content)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a/qila.lock.json", b"", True),
        ("before.json", LOCK, True),
        ("package-lock.json", b'{"lockfileVersion": 3, "packages": {"": {"dependencies": {"ecosystem": "1"}}}}', False),
        ("pylock.toml", b'lock-version = "1.0"', False),
        ("x.json", b'{"a":' * 100_000, False),
    ],
)
def test_a_lock_is_known_by_its_name_or_its_keys(name: str, content: bytes, *, expected: bool) -> None:
    assert is_qila_lock(Lockfile(name=name, content=content)) is expected
