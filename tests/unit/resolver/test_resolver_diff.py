from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qila.resolver.v1 import resolver_pb2 as pb
from services.resolver.calls import DiffLocks
from services.resolver.diff import changed_parts, diff_locks
from services.resolver.errors import LockError
from services.resolver.lock_messages import MAX_LOCKS, DiffUpload, diff_message
from services.resolver.lockfile import lock_to_json
from services.resolver.locks import read_any_lock
from services.resolver.model import LockedPackage, Lockfile
from services.resolver.servicer import ResolverServicer
from services.resolver.workers import WorkerLimits, WorkerPool
from services.rpc.errors import QilaError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from services.resolver.model import LockDiff

ONE, OTHER, THIRD = ("sha256:" + digit * 64 for digit in "abc")


def package(name: str, version: str = "1.0", **values: Any) -> LockedPackage:
    fields: dict[str, Any] = {"hashes": (ONE,), "license": "MIT", "direct": True}
    return LockedPackage(purl=f"pkg:npm/{name}@{version}", name=name, version=version, **(fields | values))


PACKAGES = st.builds(
    package,
    st.sampled_from("abc"),
    st.sampled_from(["1.9", "1.10", "2"]),
    hashes=st.sampled_from([(), (ONE,), (OTHER,)]),
    license=st.sampled_from(["MIT", "ISC", "NOASSERTION"]),
    direct=st.booleans(),
)
SETS = st.lists(PACKAGES, max_size=8)


def purls(packages: Sequence[LockedPackage | None]) -> list[str]:
    return sorted({item.purl for item in packages if item})


@given(SETS, SETS)
def test_a_diff_applied_to_what_was_before_gives_what_is_after(
    before: list[LockedPackage], after: list[LockedPackage]
) -> None:
    diff = diff_locks(before, after)
    gone = purls([change.before for change in diff.changes])
    new = purls([change.after for change in diff.changes])
    kept = set(purls(before)) - set(gone)
    assert sorted(kept | set(new)) == purls(after)
    assert len(kept) == diff.unchanged_count
    assert set(gone) <= set(purls(before))


@given(SETS, SETS)
def test_a_diff_does_not_depend_on_order_and_turns_round(
    before: list[LockedPackage], after: list[LockedPackage]
) -> None:
    diff = diff_locks(before, after)
    assert diff == diff_locks(before[::-1], after[::-1])
    assert [(change.after, change.before) for change in diff.changes] == sides(diff_locks(after, before))


@given(SETS)
def test_the_same_is_no_difference(packages: list[LockedPackage]) -> None:
    diff = diff_locks(packages, packages)
    assert (diff.changes, diff.unchanged_count) == ((), len(purls(packages)))


def sides(diff: LockDiff) -> list[tuple[LockedPackage | None, LockedPackage | None]]:
    return [(change.before, change.after) for change in diff.changes]


def test_several_versions_are_paired_newest_with_newest() -> None:
    before = [package("a", "1.9"), package("a", "1.10"), package("b", "3")]
    after = [package("a", "2.0"), package("b", "3"), package("b", "4")]
    assert sides(diff_locks(before, after)) == [
        (package("a", "1.10"), package("a", "2.0")),
        (package("a", "1.9"), None),
        (None, package("b", "4")),
    ]


SRI = "sha256-" + base64.b64encode(bytes.fromhex("a" * 64)).decode()


@pytest.mark.parametrize(
    ("before", "after", "parts"),
    [
        ({}, {"version": "2"}, ("version",)),
        ({}, {"hashes": (OTHER,)}, ("hashes",)),
        ({}, {"hashes": (ONE, OTHER)}, ()),
        ({"hashes": (ONE, OTHER)}, {}, ()),
        ({}, {"hashes": (OTHER, THIRD)}, ("hashes",)),
        ({"hashes": (ONE, OTHER)}, {"hashes": (ONE, OTHER, THIRD)}, ("hashes",)),
        ({}, {"hashes": ()}, ()),
        ({}, {"hashes": ("sha1:" + "a" * 40,)}, ()),
        ({}, {"hashes": (SRI,)}, ()),
        ({}, {"license": "ISC"}, ("license",)),
        ({}, {"license": "NOASSERTION"}, ()),
        ({}, {"license": "NOASSERTION", "license_text": "mine"}, ("license",)),
        ({}, {"direct": False, "required_by": ("pkg:npm/x@1",)}, ()),
        ({"hashes": ("h1:aaa=",)}, {"hashes": ("h1:bbb=",)}, ("hashes",)),
    ],
)
def test_what_differs_is_named_and_the_unknown_is_not(
    before: dict[str, Any], after: dict[str, Any], parts: tuple[str, ...]
) -> None:
    assert changed_parts(package("a", **before), package("a", **after)) == parts


def lock(*packages: LockedPackage) -> bytes:
    return lock_to_json("node", packages, {"node": "22.1.0"})


async def requests(*parts: tuple[int, str, bytes]) -> AsyncIterator[pb.DiffLocksRequest]:
    for side, name, content in parts:
        yield pb.DiffLocksRequest(start=pb.DiffLocksStart(side=side, name=name))  # type: ignore[arg-type]
        for start in range(0, len(content), 100):
            yield pb.DiffLocksRequest(chunk=content[start : start + 100])


async def test_locks_are_compared_in_a_worker() -> None:
    pool = WorkerPool(1, WorkerLimits())
    await pool.start()
    try:
        servicer = ResolverServicer(pool)
        parts = (pb.DIFF_SIDE_BEFORE, "qila.lock.json", lock(package("a"), package("b")))
        other = (pb.DIFF_SIDE_AFTER, "x.json", lock(package("a", "2"), package("b"), package("c")))
        answer = await servicer.DiffLocks(requests(parts, other), None)  # type: ignore[arg-type] # never used
        assert [(item.before.version, item.after.version) for item in answer.changes] == [("1.0", "2"), ("", "1.0")]
        assert not answer.changes[1].HasField("before")
        assert answer.unchanged_count == 1
        broken = (pb.DIFF_SIDE_AFTER, "qila.lock.json", b"{\n]")
        with pytest.raises(QilaError) as caught:
            await servicer.DiffLocks(requests(parts, broken), None)  # type: ignore[arg-type] # never used
        assert (caught.value.reason, caught.value.metadata) == ("LOCK_INVALID", {"name": "qila.lock.json", "line": "2"})
    finally:
        await pool.stop()


def test_more_than_a_few_locks_or_bytes_are_refused() -> None:
    upload = DiffUpload()
    start = pb.DiffLocksRequest(start=pb.DiffLocksStart(side=pb.DIFF_SIDE_AFTER, name="x"))
    for _ in range(MAX_LOCKS):
        upload.add(start)
    with pytest.raises(QilaError, match="locks on one side"):
        upload.add(start)
    chunk = pb.DiffLocksRequest(chunk=b"x" * (1 << 20))
    for _ in range(64):
        upload.add(chunk)
    with pytest.raises(QilaError, match="above"):
        upload.add(chunk)


@pytest.mark.parametrize(
    "request_",
    [
        pb.DiffLocksRequest(chunk=b"x"),
        pb.DiffLocksRequest(),
        pb.DiffLocksRequest(start=pb.DiffLocksStart(name="x")),
        pb.DiffLocksRequest(start=pb.DiffLocksStart(side=pb.DIFF_SIDE_AFTER, name="x" * 300)),
    ],
)
def test_a_message_that_says_nothing_is_refused(request_: pb.DiffLocksRequest) -> None:
    with pytest.raises(QilaError):
        DiffUpload().add(request_)


def test_a_diff_that_no_message_holds_is_refused() -> None:
    after = [package(f"p{number}", hashes=(ONE,) * 500) for number in range(1000)]
    with pytest.raises(QilaError, match="1000 differences"):
        diff_message(diff_locks([], after))


class Native:
    """A planner that knows one kind of lock."""

    ecosystem = "other"

    def reads_lock(self, lockfile: Lockfile) -> bool:
        return lockfile.name == "other.lock"

    def read_lock(self, lockfile: Lockfile, toolchain: dict[str, str]) -> list[LockedPackage]:
        if not lockfile.content:
            raise LockError(line=7, reason="is empty")
        return [package(lockfile.content.decode(), toolchain["other"])]


def test_a_native_lock_is_read_by_the_planner_that_knows_it() -> None:
    planners: Any = [Native()]
    native = Lockfile(name="other.lock", content=b"a")
    assert read_any_lock(native, {"other": "9"}, planners) == ("other", [package("a", "9")])
    with pytest.raises(LockError, match=r"^other\.lock: line 7: is empty$"):
        read_any_lock(Lockfile(name="other.lock", content=b""), {}, planners)
    with pytest.raises(LockError, match=r"^what: is neither"):
        read_any_lock(Lockfile(name="what", content=b""), {}, planners)


def test_a_call_compares_all_locks_of_a_side() -> None:
    one, two = (Lockfile(name="qila.lock.json", content=lock(package(name))) for name in "ab")
    both = Lockfile(name="qila.lock.json", content=lock(package("a"), package("b")))
    diff = DiffLocks(before=(one, two), after=(both,), toolchain={}).run()
    assert (diff.changes, diff.unchanged_count) == ((), 2)
