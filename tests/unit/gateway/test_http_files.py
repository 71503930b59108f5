"""Parts of files, trees, comparisons and transfers over the HTTP door."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.http.app import operations_of_door

from .gateway_world import World
from .http_world import client_of, events_in
from .test_http_calls import reason

CONTENT = random.Random(3).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(name="client")
async def make_client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(world) as client:
        yield client


@pytest.fixture
def url(world: World) -> str:
    return f"/v1/sandboxes/{world.sandbox_id}"


def packed(**files: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def unpacked(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {member.name: file.read() for member in archive if (file := archive.extractfile(member)) is not None}


async def broken_off(content: bytes, sent: int) -> AsyncIterator[bytes]:
    """A body that ends before it is whole, as a client that goes away leaves it."""
    yield content[:sent]
    raise ConnectionError("the client goes away")


def test_every_call_of_the_gateway_is_here() -> None:
    """But for the one that carries bytes both ways at once: docs/http.md says so."""
    there = {name for operation in operations_of_door() for name in operation.calls}
    calls = {method.name for method in pb.DESCRIPTOR.services_by_name["GatewayService"].methods}
    assert calls - there == {"ConnectPort"}
    assert there <= calls


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-", 0, 299_999), ("bytes=5-9", 5, 9), ("bytes=299999-", 299_999, 299_999),
        ("bytes=100000-999999", 100_000, 299_999), ("bytes=-7", 299_993, 299_999), ("bytes=-999999", 0, 299_999),
    ],
)  # fmt: skip
async def test_a_range_of_a_file_and_of_a_tree(
    world: World, client: httpx.AsyncClient, url: str, wanted: str, first: int, last: int
) -> None:
    world.sandbox.files["d/f"] = CONTENT
    part = await client.get(f"{url}/files/d/f", headers={"range": wanted})
    assert (part.status_code, part.content) == (206, CONTENT[first : last + 1])
    assert part.headers["content-range"] == f"bytes {first}-{last}/300000"
    assert part.headers["content-length"] == str(last - first + 1)
    whole = await client.get(f"{url}/tree", params={"path": "d"})
    again = await client.get(f"{url}/tree", params={"path": "d"}, headers={"range": wanted})
    size = len(whole.content)
    assert again.status_code == 206
    end = {"bytes=5-9": 10}.get(wanted, size)
    begin = size - 7 if wanted == "bytes=-7" else first
    assert again.content == whole.content[begin:end]
    assert again.headers["content-range"] == f"bytes {begin}-{end - 1}/{size}"


@pytest.mark.parametrize("wanted", ["bytes=5-4", "bytes=1-2,4-5", "items=1-2", "bytes=", "bytes=-", "bytes=a-b", ""])
async def test_what_is_no_single_range_is_answered_with_all(
    world: World, client: httpx.AsyncClient, url: str, wanted: str
) -> None:
    world.sandbox.files["f"] = CONTENT
    answer = await client.get(f"{url}/files/f", headers={"range": wanted})
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("path", ["files/d/f", "tree?path=d"])
async def test_a_range_behind_the_end_says_where_that_is(
    world: World, client: httpx.AsyncClient, url: str, path: str
) -> None:
    world.sandbox.files["d/f"] = b"12345"
    size = (await client.get(f"{url}/{path}")).headers["content-length"]
    for wanted in (f"bytes={size}-", "bytes=99999999-", "bytes=-0"):
        answer = await client.get(f"{url}/{path}", headers={"range": wanted})
        assert reason(answer) == (416, "RANGE_NOT_SATISFIABLE")
        assert answer.headers["content-range"] == f"bytes */{size}"


@pytest.mark.parametrize("path", ["files/d/f", "tree?path=d"])
async def test_a_download_goes_on_only_with_what_it_began_with(
    world: World, client: httpx.AsyncClient, url: str, path: str
) -> None:
    world.sandbox.files["d/f"] = CONTENT
    whole = await client.get(f"{url}/{path}")
    etag = whole.headers["etag"]
    again = await client.get(f"{url}/{path}", headers={"range": "bytes=1000-", "if-range": etag})
    assert (again.status_code, again.content) == (206, whole.content[1000:])
    unchanged = await client.get(f"{url}/{path}", headers={"if-none-match": f'"other", W/{etag}'})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)
    world.sandbox.files["d/f"] = CONTENT[::-1] + b"more"
    other = await client.get(f"{url}/{path}", headers={"range": "bytes=1000-", "if-range": etag})
    assert (other.status_code, len(other.content)) == (200, int(other.headers["content-length"]))
    assert other.headers["etag"] != etag
    assert (await client.get(f"{url}/{path}", headers={"if-none-match": etag})).status_code == 200


@pytest.mark.parametrize("path", ["files/f", "tree?path=t"])
async def test_an_upload_goes_on_where_it_broke(world: World, client: httpx.AsyncClient, url: str, path: str) -> None:
    content = CONTENT if path == "files/f" else packed(a=CONTENT, b=b"")
    digest = hashlib.sha256(content).hexdigest()
    asked = {"transfer_id": "mine", "sha256": digest} | ({"path": "t"} if "tree" in path else {})
    place = f"{url}/{path.partition('?')[0]}"
    with pytest.raises(ConnectionError):
        await client.put(place, params=asked, content=broken_off(content, 200_000))
    held = (await client.get(f"{url}/transfers/mine")).json()["size"]
    assert 0 < held <= 200_000
    assert "f" not in world.sandbox.files
    beyond = await client.put(place, params=asked | {"offset": held + 1}, content=b"")
    assert reason(beyond)[0] == 409
    done = await client.put(place, params=asked | {"offset": held}, content=content[held:])
    assert (done.status_code, done.json()["sha256"], done.json()["size"]) == (200, digest, len(content))
    assert world.sandbox.files.get("f", world.sandbox.files.get("t/a")) == CONTENT
    assert (await client.get(f"{url}/transfers/mine")).json() == {"size": 0}
    wrong = await client.put(place, params=asked | {"sha256": "0" * 64}, content=content)
    assert reason(wrong) == (400, "FILE_DIGEST_MISMATCH")


async def test_a_tree_goes_up_and_comes_down(world: World, client: httpx.AsyncClient, url: str) -> None:
    written = await client.put(f"{url}/tree", params={"path": "t"}, content=packed(a=b"1", b=CONTENT))
    assert written.json()["file_count"] == 2
    assert world.sandbox.files["t/b"] == CONTENT
    answer = await client.get(f"{url}/tree", params={"path": "t"})
    assert answer.headers["content-type"] == "application/x-tar"
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["x-qila-entries"] == "2"
    assert unpacked(answer.content) == {"a": b"1", "b": CONTENT}
    assert reason(await client.put(f"{url}/tree", content=b"no archive")) == (400, "FILE_INVALID_TREE")
    assert reason(await client.get(f"{url}/tree", params={"path": "gone"})) == (404, "FILE_NOT_FOUND")
    assert reason(await client.get(f"{url}/tree", params={"path": "../x"})) == (400, "FIELD_INVALID")


async def test_a_tree_is_compared(world: World, client: httpx.AsyncClient, url: str) -> None:
    world.sandbox.files |= {"t/same": CONTENT, "t/other": b"old", "t/beyond": b"", "t/left/x": b""}
    files = [{"path": name, "size": len(CONTENT), "sha256": SHA256} for name in ("same", "other", "new")]
    body = {"path": "t", "files": files, "ignored_names": ["left"]}
    answer = await client.post(f"{url}/tree/compare", json=body)
    assert answer.json() == {"different": ["new", "other"], "beyond": ["beyond"]}
    many = [{"path": f"f{number}", "size": 0, "sha256": SHA256, "executable": False} for number in range(16_001)]
    assert reason(await client.post(f"{url}/tree/compare", json={"files": many})) == (400, "FIELD_INVALID")
    whole = await client.post(f"{url}/tree/compare", json={"files": many[1:]})
    assert len(whole.json()["different"]) == 16_000


async def test_stat_move_directories_and_deep_lists(world: World, client: httpx.AsyncClient, url: str) -> None:
    assert (await client.post(f"{url}/directories", json={"path": "made/deep"})).status_code == 204
    world.sandbox.files["a/b.py"] = b"123"
    assert (await client.post(f"{url}/move", json={"source": "a/b.py", "target": "made/c.py"})).status_code == 204
    found = (await client.get(f"{url}/stat", params={"path": "made/c.py"})).json()
    assert (found["kind"], found["size"]) == ("file", 3)
    asked: dict[str, Any] = {"path": "made", "depth": 9, "pattern": ["*.py", "*.txt"]}
    listed = (await client.get(f"{url}/files", params=asked)).json()["files"]
    assert [item["name"] for item in listed] == ["c.py"]
    world.sandbox.files["there"] = b""
    move = {"source": "made/c.py", "target": "there"}
    assert reason(await client.post(f"{url}/move", json=move)) == (409, "FILE_EXISTS")
    assert (await client.post(f"{url}/move", json=move | {"replace": True})).status_code == 204
    assert reason(await client.post(f"{url}/directories", json={"path": "there"})) == (409, "FILE_EXISTS")
    assert reason(await client.get(f"{url}/stat", params={"path": "gone"})) == (404, "FILE_NOT_FOUND")
    assert reason(await client.get(f"{url}/files", params={"depth": 65})) == (400, "FIELD_INVALID")
    assert reason(await client.get(f"{url}/files", params=[("depth", 1), ("depth", 2)])) == (400, "QUERY_INVALID")


async def test_images_are_listed_and_chosen(world: World, client: httpx.AsyncClient) -> None:
    world.executor.images["go1.26"] = {"go": "1.26.6"}
    images = (await client.get("/v1/images")).json()["images"]
    assert [(image["name"], image["is_default"]) for image in images] == [("default", True), ("go1.26", False)]
    made = await client.post("/v1/sandboxes", json={"image": "go1.26"})
    assert made.json()["image"] == "go1.26"
    assert reason(await client.post("/v1/sandboxes", json={"image": "none"})) == (400, "IMAGE_UNKNOWN")


async def test_changes_are_told_as_they_happen(world: World, client: httpx.AsyncClient, url: str) -> None:
    async with client.stream("GET", f"{url}/watch", params={"pattern": "*.py"}) as stream:
        text = ""
        async for part in stream.aiter_text():
            text += part
            if "event: ready" in text and "a.py" not in text:
                await client.put(f"{url}/files/a.py", content=b"1")
            if "event: changes" in text:
                break
    kinds = [(kind, data) for _, kind, data in events_in(text)]
    assert kinds[0] == ("ready", {})
    (change,) = kinds[1][1]["changes"]
    assert (change["path"], change["kind"], change["size"]) == ("a.py", "created", 1)
    for asked, expected in (({"path": "gone"}, (404, "FILE_NOT_FOUND")), ({"depth": "65"}, (400, "FIELD_INVALID"))):
        assert reason(await client.get(f"{url}/watch", params=asked)) == expected
    assert world.sandbox.files["a.py"] == b"1"
