"""SPDX 2.3 as JSON, written as the specification has it."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from services.resolver.packages import NO_ASSERTION
from services.resolver.sbom.content import (
    DEPENDENCY_KEY,
    MANAGED_KEY,
    NAMESPACE,
    SANDBOX_KEY,
    TOOL,
    TOOL_VERSION,
    TOOLCHAIN_KEY,
    UNMANAGED_KNOWN_KEY,
    license_expression,
    to_json,
)

if TYPE_CHECKING:
    from services.resolver.model import LockedPackage
    from services.resolver.sbom.content import Component, Content, Runtime

Json: TypeAlias = dict[str, Any]

DOCUMENT = "SPDXRef-DOCUMENT"
ROOT = "SPDXRef-Exec"
AGENT = f"Tool: {TOOL}-{TOOL_VERSION}"
NOT_AN_ID = re.compile(r"[^A-Za-z0-9.]+")
LICENSE_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
MAX_ID_TEXT = 80
# So many digits of a digest keep two names apart.
DIGEST_DIGITS = 16
OWN_WORDS = "As the package's own metadata words it."
KNOWN_ELSEWHERE = "The package's metadata names this licence; its text is in the package."


def render_spdx(content: Content) -> bytes:
    """The document, a package a line."""
    subject = content.subject
    document = {
        "SPDXID": DOCUMENT,
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "name": f"{content.program} {subject.exec_id}",
        "documentNamespace": f"{NAMESPACE}/{subject.exec_id}-{content.document_id}",
        "creationInfo": {"created": _created(content), "creators": [AGENT], "comment": _comment(content)},
        "packages": [
            _root(content),
            *(_runtime(runtime) for runtime in content.runtimes),
            *(_package(content, item) for item in content.components),
        ],
        "hasExtractedLicensingInfos": _licenses(content),
        "relationships": _relationships(content),
    }
    if not document["hasExtractedLicensingInfos"]:
        del document["hasExtractedLicensingInfos"]
    return to_json(document)


def _created(content: Content) -> str:
    return content.created.strftime("%Y-%m-%dT%H:%M:%SZ")


def _comment(content: Content) -> str:
    if content.subject.unmanaged_known:
        return f"{UNMANAGED_KNOWN_KEY}=true"
    return f"{UNMANAGED_KNOWN_KEY}=false: what programs installed by themselves is missing"


def _root(content: Content) -> Json:
    words = {SANDBOX_KEY: content.subject.sandbox_id}
    words |= {TOOLCHAIN_KEY + name: version for name, version in content.other_tools.items()}
    return _entry(ROOT, content.program, content.subject.exec_id, "APPLICATION") | {
        "annotations": [_annotation(content, words)]
    }


def _runtime(runtime: Runtime) -> Json:
    entry = _entry(_id(runtime.purl), runtime.name, runtime.version, "APPLICATION")
    return entry | {"externalRefs": [_purl(runtime.purl)]}


def _package(content: Content, item: Component) -> Json:
    package = item.package
    words = {DEPENDENCY_KEY: item.dependency, MANAGED_KEY: "true" if item.managed else "false"}
    words |= {f"qila:hash-{number}": text for number, text in enumerate(item.other_hashes)}
    entry = _entry(_id(item.ref), package.name, package.version, "LIBRARY") | {
        "licenseDeclared": _license(package),
        "externalRefs": [_purl(package.purl)],
        "annotations": [_annotation(content, words)],
    }
    if item.hashes:
        entry["checksums"] = [
            {"algorithm": found.algorithm.upper(), "checksumValue": found.digits} for found in item.hashes
        ]
    if package.license_text.strip():
        entry["licenseComments"] = f"{OWN_WORDS} {package.license_text.strip()}"
    return entry


def _entry(identifier: str, name: str, version: str, purpose: str) -> Json:
    """What every package must say, and that nothing more is known."""
    return {
        "SPDXID": identifier,
        "name": name,
        "versionInfo": version,
        "primaryPackagePurpose": purpose,
        "filesAnalyzed": False,
        "downloadLocation": NO_ASSERTION,
        "supplier": NO_ASSERTION,
        "licenseConcluded": NO_ASSERTION,
        "licenseDeclared": NO_ASSERTION,
        "copyrightText": NO_ASSERTION,
    }


def _purl(purl: str) -> Json:
    return {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}


def _annotation(content: Content, words: dict[str, str]) -> Json:
    return {
        "annotationDate": _created(content),
        "annotationType": "OTHER",
        "annotator": AGENT,
        "comment": "; ".join(f"{name}={value}" for name, value in words.items()),
    }


def _license(package: LockedPackage) -> str:
    """The expression, or a reference to the package's own words, or that nothing is known."""
    expression = license_expression(package.license)
    if expression:
        return expression
    text = package.license_text.strip()
    return _reference(text) if text else NO_ASSERTION


def _reference(text: str) -> str:
    return f"LicenseRef-qila-{_digest(text)}"


def _licenses(content: Content) -> list[Json]:
    """Each licence outside SPDX's list that a package of the document names, once."""
    found: dict[str, Json] = {}
    for item in content.components:
        declared = _license(item.package)
        text = item.package.license_text.strip()
        for reference in LICENSE_REFERENCE.findall(declared):
            own = reference == declared == _reference(text)
            found[reference] = {
                "licenseId": reference,
                "name": NO_ASSERTION if own else reference,
                "extractedText": text if own else KNOWN_ELSEWHERE,
            }
    return [found[reference] for reference in sorted(found)]


def _relationships(content: Content) -> list[Json]:
    return [
        _relationship(DOCUMENT, "DESCRIBES", ROOT),
        *(_relationship(ROOT, "DEPENDS_ON", _id(runtime.purl)) for runtime in content.runtimes),
        *(_relationship(ROOT, "DEPENDS_ON", _id(ref)) for ref in content.direct),
        *(_relationship(ROOT, "CONTAINS", _id(ref)) for ref in content.loose),
        *(
            _relationship(_id(ref), "DEPENDS_ON", _id(needed))
            for ref, several in content.needs.items()
            for needed in several
        ),
    ]


def _relationship(element: str, kind: str, related: str) -> Json:
    return {"spdxElementId": element, "relationshipType": kind, "relatedSpdxElement": related}


def _id(ref: str) -> str:
    """An identifier that a person can read, and that no two refs share."""
    return f"SPDXRef-{NOT_AN_ID.sub('-', ref)[:MAX_ID_TEXT]}-{_digest(ref)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]
