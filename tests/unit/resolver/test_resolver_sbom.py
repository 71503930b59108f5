from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from qila.resolver.v1 import resolver_pb2 as pb
from services.resolver.lock_messages import SbomUpload
from services.resolver.lockfile import QilaLock, lock_to_json
from services.resolver.model import LockedPackage, SbomFormat, SbomSubject
from services.resolver.sbom import render_sbom
from services.resolver.servicer import CHUNK_BYTES, ResolverServicer
from services.resolver.workers import WorkerLimits, WorkerPool
from services.rpc.errors import QilaError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SCHEMAS = Path(__file__).parents[2] / "cases" / "schemas"
SHA256 = "sha256:" + "a" * 64
INTEGRITY = "sha512-" + "A" * 86 + "=="
SUBJECT = SbomSubject(sandbox_id="sb_a", exec_id="ex_b", time=1_700_000_000, program="main.py")
HOSTILE = 'x\n\x1b[2J\u202e"</script>'


def package(kind: str, name: str, version: str, **values: Any) -> LockedPackage:
    fields: dict[str, Any] = {"hashes": (SHA256,), "license": "MIT", "direct": False}
    purl = f"pkg:{kind}/{name.replace('@', '%40', 1)}@{version}"
    return LockedPackage(purl=purl, name=name, version=version, **(fields | values))


REQUESTS = package(
    "pypi", "requests", "2.34.2", direct=True, license="Apache-2.0 AND LicenseRef-scancode-public-domain"
)
IDNA = package(
    "pypi", "idna", "3.20", required_by=(REQUESTS.purl,), license="NOASSERTION", license_text="BSD-like\nwords"
)
CORE = package("npm", "@a/Core", "1.0.0", direct=True, hashes=(INTEGRITY, "h1:other="))
OLD = package("npm", "left", "1.0.0", required_by=(CORE.purl, "pkg:npm/gone@1"), license="NOASSERTION")
NEW = package("npm", "left", "2.0.0", required_by=("pkg:npm/left@1.0.0",), license="NOASSERTION", license_text=HOSTILE)
PYTHON = QilaLock(ecosystem="python", toolchain={"python": "3.13.5", "uv": "0.9"}, packages=(REQUESTS, IDNA))
NODE = QilaLock(ecosystem="node", toolchain={"node": "22.1.0"}, packages=(CORE, OLD, NEW))
BY_HAND = package("pypi", "idna", "3.20", license="weird expression ((")
EDGES = {
    ("ex_b", REQUESTS.purl), ("ex_b", CORE.purl), (REQUESTS.purl, IDNA.purl), (CORE.purl, OLD.purl),
    (OLD.purl, NEW.purl), ("ex_b", "pkg:generic/python@3.13.5"), ("ex_b", "pkg:generic/node@22.1.0"),
    ("ex_b", f"unmanaged:{BY_HAND.purl}"),
}  # fmt: skip


def render(sbom_format: SbomFormat, subject: SbomSubject = SUBJECT) -> bytes:
    return render_sbom(subject, [PYTHON, NODE], [BY_HAND], sbom_format).content


def properties(document: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in document["properties"]}


def check_spdx(content: bytes) -> dict[str, Any]:
    schema = json.loads((SCHEMAS / "spdx-2.3.schema.json").read_bytes())
    document: dict[str, Any] = json.loads(content)
    jsonschema.Draft201909Validator(schema).validate(document)
    identifiers = [item["SPDXID"] for item in document["packages"]]
    assert len(set(identifiers)) == len(identifiers)
    for relation in document["relationships"]:
        assert {relation["spdxElementId"], relation["relatedSpdxElement"]} <= {"SPDXRef-DOCUMENT", *identifiers}
    return document


def check_cyclonedx(content: bytes) -> dict[str, Any]:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(content.decode())
    assert error is None, error.data.message
    document: dict[str, Any] = json.loads(content)
    references = [document["metadata"]["component"]["bom-ref"], *(item["bom-ref"] for item in document["components"])]
    assert len(set(references)) == len(references)
    assert sorted(item["ref"] for item in document["dependencies"]) == sorted(references)
    return document


def test_cyclonedx_is_valid_and_says_all() -> None:
    document = check_cyclonedx(render(SbomFormat.CYCLONEDX_1_6))
    edges = {(item["ref"], other) for item in document["dependencies"] for other in item.get("dependsOn", ())}
    assert edges == EDGES
    assert document["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    root = document["metadata"]["component"]
    assert (root["type"], root["name"], root["version"]) == ("application", "main.py", "ex_b")
    assert properties(root) == {"qila:sandbox": "sb_a", "qila:unmanaged-known": "true", "qila:toolchain:uv": "0.9"}
    assert document["compositions"] == [{"aggregate": "complete", "assemblies": ["ex_b"]}]
    found = {item["bom-ref"]: item for item in document["components"]}
    idna = found[IDNA.purl]
    assert idna["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert idna["licenses"][0]["license"]["text"]["content"] == "BSD-like\nwords"
    assert properties(idna) == {"qila:dependency": "transitive", "qila:managed": "true"}
    assert properties(found[f"unmanaged:{BY_HAND.purl}"])["qila:managed"] == "false"
    core = found[CORE.purl]
    assert (core["group"], core["name"], core["purl"]) == ("@a", "Core", "pkg:npm/%40a/Core@1.0.0")
    assert core["hashes"] == [{"alg": "SHA-512", "content": "00" * 64}]
    assert properties(core)["qila:hash"] == "h1:other="
    assert core["licenses"] == [{"expression": "MIT", "acknowledgement": "declared"}]
    assert "licenses" not in found[OLD.purl]


def test_spdx_is_valid_and_says_all() -> None:
    document = check_spdx(render(SbomFormat.SPDX_2_3))
    packages = {item["SPDXID"]: item for item in document["packages"]}
    names = {
        identifier: next((ref["referenceLocator"] for ref in item.get("externalRefs", ())), item["versionInfo"])
        for identifier, item in packages.items()
    }
    hand = next(key for key in packages if key.startswith("SPDXRef-unmanaged-"))
    names[hand] = f"unmanaged:{names[hand]}"
    first, *rest = document["relationships"]
    assert (first["spdxElementId"], first["relationshipType"]) == ("SPDXRef-DOCUMENT", "DESCRIBES")
    assert {(names[item["spdxElementId"]], names[item["relatedSpdxElement"]]) for item in rest} == EDGES
    assert [item["relatedSpdxElement"] for item in rest if item["relationshipType"] == "CONTAINS"] == [hand]
    found = {names[identifier]: item for identifier, item in packages.items()}
    assert found[IDNA.purl]["checksums"] == [{"algorithm": "SHA256", "checksumValue": "a" * 64}]
    assert "qila:dependency=transitive; qila:managed=true" in found[IDNA.purl]["annotations"][0]["comment"]
    assert "qila:managed=false" in packages[hand]["annotations"][0]["comment"]
    texts = {item["licenseId"]: item["extractedText"] for item in document["hasExtractedLicensingInfos"]}
    assert texts[found[IDNA.purl]["licenseDeclared"]] == "BSD-like\nwords"
    assert "LicenseRef-scancode-public-domain" in texts
    assert found[OLD.purl]["licenseDeclared"] == "NOASSERTION" == packages[hand]["licenseDeclared"]
    assert found[CORE.purl]["licenseDeclared"] == "MIT"
    assert document["creationInfo"]["created"] == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize("sbom_format", SbomFormat)
def test_the_same_exec_has_the_same_bytes_in_any_order(sbom_format: SbomFormat) -> None:
    turned = QilaLock(ecosystem="node", toolchain=NODE.toolchain, packages=NODE.packages[::-1])
    assert render_sbom(SUBJECT, [turned, PYTHON], [BY_HAND], sbom_format).content == render(sbom_format)
    other = SbomSubject(sandbox_id="sb_a", exec_id="ex_c", time=SUBJECT.time)
    documents = [json.loads(render(sbom_format, subject)) for subject in (SUBJECT, other)]
    key = "serialNumber" if sbom_format is SbomFormat.CYCLONEDX_1_6 else "documentNamespace"
    assert documents[0][key] != documents[1][key]


@pytest.mark.parametrize("sbom_format", SbomFormat)
def test_what_nobody_looked_for_is_said(sbom_format: SbomFormat) -> None:
    subject = SbomSubject(sandbox_id="sb_a", exec_id="ex_b", time=0, program=HOSTILE, unmanaged_known=False)
    content = render_sbom(subject, [], [], sbom_format).content
    assert content.isascii()
    if sbom_format is SbomFormat.CYCLONEDX_1_6:
        document = check_cyclonedx(content)
        assert document["compositions"][0]["aggregate"] == "incomplete"
        assert properties(document["metadata"]["component"])["qila:unmanaged-known"] == "false"
    else:
        assert "qila:unmanaged-known=false" in check_spdx(content)["creationInfo"]["comment"]


async def requests(*parts: pb.RenderSbomRequest) -> AsyncIterator[pb.RenderSbomRequest]:
    for part in parts:
        yield part


HEADER = pb.RenderSbomHeader(format=pb.SBOM_FORMAT_SPDX_2_3, sandbox_id="sb_a", exec_id="ex_b", time=1, program="p")


async def test_an_sbom_is_rendered_in_a_worker_and_streamed() -> None:
    pool = WorkerPool(1, WorkerLimits())
    await pool.start()
    try:
        servicer = ResolverServicer(pool)
        packages = [package("pypi", f"p{number}", "1", direct=True) for number in range(100)]
        lock = lock_to_json("python", packages, {"python": "3.13.5"})
        parts = requests(
            pb.RenderSbomRequest(header=HEADER),
            pb.RenderSbomRequest(start=pb.SbomPart(lock=True)),
            pb.RenderSbomRequest(chunk=lock[:500]),
            pb.RenderSbomRequest(chunk=lock[500:]),
        )
        chunks = [answer.chunk async for answer in servicer.RenderSbom(parts, None)]  # type: ignore[arg-type] # never used
        assert len(chunks) > 1
        assert max(map(len, chunks)) == CHUNK_BYTES
        assert len(check_spdx(b"".join(chunks))["packages"]) == len(packages) + 2
        broken = requests(pb.RenderSbomRequest(header=HEADER), pb.RenderSbomRequest(start=pb.SbomPart(lock=True)))
        with pytest.raises(QilaError) as caught:
            _ = [answer async for answer in servicer.RenderSbom(broken, None)]  # type: ignore[arg-type] # never used
        assert caught.value.reason == "LOCK_INVALID"
    finally:
        await pool.stop()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 0}, "FORMAT_UNKNOWN"),
        ({"format": 9}, "FORMAT_UNKNOWN"),
        ({"exec_id": ""}, "SUBJECT_MISSING"),
        ({"time": -1}, "TIME_INVALID"),
        ({"time": 1 << 62}, "TIME_INVALID"),
    ],
)
def test_a_header_that_cannot_be_is_refused(changes: dict[str, Any], reason: str) -> None:
    header = pb.RenderSbomHeader()
    header.CopyFrom(HEADER)
    for name, value in changes.items():
        setattr(header, name, value)
    upload = SbomUpload()
    upload.add(pb.RenderSbomRequest(header=header))
    with pytest.raises(QilaError) as caught:
        upload.call()
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "request_",
    [pb.RenderSbomRequest(), pb.RenderSbomRequest(chunk=b"x"), pb.RenderSbomRequest(start=pb.SbomPart())],
)
def test_a_part_that_says_nothing_is_refused(request_: pb.RenderSbomRequest) -> None:
    upload = SbomUpload()
    with pytest.raises(QilaError):
        upload.add(request_)
    with pytest.raises(QilaError, match="header"):
        upload.call()
