"""CycloneDX 1.6 as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cyclonedx.model import AttachedText, HashAlgorithm, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component as BomComponent
from cyclonedx.model.component import ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseAcknowledgement, LicenseExpression
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema.schema import SchemaVersion1Dot6

from services.resolver.packages import name_of_purl
from services.resolver.sbom.content import (
    DEPENDENCY_KEY,
    MANAGED_KEY,
    SANDBOX_KEY,
    TOOL,
    TOOL_VERSION,
    TOOLCHAIN_KEY,
    UNMANAGED_KNOWN_KEY,
    license_expression,
    to_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.resolver.model import LockedPackage
    from services.resolver.sbom.content import Component, Content, Runtime

ALGORITHMS = {
    "md5": HashAlgorithm.MD5,
    "sha1": HashAlgorithm.SHA_1,
    "sha256": HashAlgorithm.SHA_256,
    "sha384": HashAlgorithm.SHA_384,
    "sha512": HashAlgorithm.SHA_512,
}
# A hash that is none of these is kept as a property.
HASH_KEY = "qila:hash"
# What is longer is a licence's text and not its name.
MAX_LICENSE_NAME = 200


def render_cyclonedx(content: Content) -> bytes:
    """The document, a component a line.

    The library renders the frame and each component. What it does in quadratic time, or at a hundred microseconds for
    each hash, is put in by itself: hashes, dependencies, purls, compositions.
    """
    frame = Bom(
        serial_number=content.document_id,
        metadata=BomMetaData(
            timestamp=content.created,
            component=_root(content),
            tools=ToolRepository(
                components=[BomComponent(name=TOOL, version=TOOL_VERSION, type=ComponentType.APPLICATION)]
            ),
        ),
    )
    document = json.loads(JsonV1Dot6(frame).output_as_string())
    document["components"] = [
        *(_rendered(_runtime(runtime)) | {"purl": runtime.purl} for runtime in content.runtimes),
        *(_complete(_rendered(_component(item)), item) for item in content.components),
    ]
    document["dependencies"] = _dependencies(content)
    document["compositions"] = _compositions(content)
    return to_json(document)


def _root(content: Content) -> BomComponent:
    subject = content.subject
    return BomComponent(
        name=content.program,
        version=subject.exec_id,
        type=ComponentType.APPLICATION,
        bom_ref=subject.exec_id,
        properties=_properties(
            (SANDBOX_KEY, subject.sandbox_id),
            (UNMANAGED_KNOWN_KEY, _word(subject.unmanaged_known)),
            *((TOOLCHAIN_KEY + name, version) for name, version in content.other_tools.items()),
        ),
    )


def _rendered(component: BomComponent) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(component.as_json(view_=SchemaVersion1Dot6))  # type: ignore[attr-defined] # its decorator adds it
    return document


def _runtime(runtime: Runtime) -> BomComponent:
    return BomComponent(
        name=runtime.name,
        version=runtime.version,
        type=ComponentType.PLATFORM,
        bom_ref=runtime.purl,
    )


def _component(item: Component) -> BomComponent:
    package = item.package
    namespace, name = name_of_purl(package.purl)
    return BomComponent(
        group=namespace or None,
        name=name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=item.ref,
        licenses=_licenses(package),
        properties=_properties(
            (DEPENDENCY_KEY, item.dependency),
            (MANAGED_KEY, _word(item.managed)),
            *((HASH_KEY, text) for text in item.other_hashes),
        ),
    )


def _complete(document: dict[str, Any], item: Component) -> dict[str, Any]:
    # The library's own purls are in lower case, which names another package on npm.
    hashes = [{"alg": ALGORITHMS[found.algorithm].value, "content": found.digits} for found in item.hashes]
    return document | {"purl": item.package.purl} | ({"hashes": hashes} if hashes else {})


def _licenses(package: LockedPackage) -> list[LicenseExpression | DisjunctiveLicense]:
    declared = LicenseAcknowledgement.DECLARED
    expression = license_expression(package.license)
    if expression:
        return [LicenseExpression(expression, acknowledgement=declared)]
    text = package.license_text.strip()
    if not text:
        return []
    name = text.splitlines()[0][:MAX_LICENSE_NAME]
    whole = AttachedText(content=text) if name != text else None
    return [DisjunctiveLicense(name=name, text=whole, acknowledgement=declared)]


def _dependencies(content: Content) -> list[dict[str, Any]]:
    """One entry for each component, with what it requires; a component without any says so too."""
    runtimes = [runtime.purl for runtime in content.runtimes]
    return [
        {"ref": content.subject.exec_id, "dependsOn": [*runtimes, *content.direct, *content.loose]},
        *({"ref": ref} for ref in runtimes),
        *({"ref": item.ref} | _depends_on(content.needs.get(item.ref, ())) for item in content.components),
    ]


def _depends_on(refs: Sequence[str]) -> dict[str, list[str]]:
    return {"dependsOn": list(refs)} if refs else {}


def _compositions(content: Content) -> list[dict[str, Any]]:
    aggregate = "complete" if content.subject.unmanaged_known else "incomplete"
    return [{"aggregate": aggregate, "assemblies": [content.subject.exec_id]}]


def _properties(*pairs: tuple[str, str]) -> list[Property]:
    return [Property(name=name, value=value) for name, value in pairs]


def _word(value: bool) -> str:  # noqa: FBT001 - the value is all there is
    return "true" if value else "false"
