"""What an SBOM says, before it takes a format: components, and which of them depends on which."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from services.resolver.hashes import Hash, parse_hash
from services.resolver.licenses import spdx
from services.resolver.packages import merged_packages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.resolver.lockfile import QilaLock
    from services.resolver.model import LockedPackage, SbomSubject

TOOL = "qila"
TOOL_VERSION = version("qila")
# Names documents only; nothing needs to answer there.
NAMESPACE = "https://qila.dev/spdx"
# How both formats spell what they have no word for.
DEPENDENCY_KEY = "qila:dependency"
MANAGED_KEY = "qila:managed"
UNMANAGED_KNOWN_KEY = "qila:unmanaged-known"
SANDBOX_KEY = "qila:sandbox"
TOOLCHAIN_KEY = "qila:toolchain:"
DIRECT, TRANSITIVE = "direct", "transitive"


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """What interprets the programs of an ecosystem."""

    name: str
    version: str

    @property
    def purl(self) -> str:
        """Its name among packages of no registry."""
        return f"pkg:generic/{self.name}@{self.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """One package; `ref` is its own in the document. A package without a lock behind it is not `managed`.

    `hashes` are those of common algorithms, in order; `other_hashes` all others, as the lock has them.
    """

    ref: str
    package: LockedPackage
    managed: bool
    hashes: tuple[Hash, ...]
    other_hashes: tuple[str, ...]

    @property
    def dependency(self) -> str:
        """Whether the program asks for it or another package does; one without a known requirer counts as direct."""
        return DIRECT if self.package.direct or not self.managed else TRANSITIVE


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """All that an SBOM says. `needs` maps a component's ref to the refs of those that it requires, in order.

    `direct` are the refs that the exec itself requires; `loose` those that are there and that nothing requires.
    """

    subject: SbomSubject
    components: tuple[Component, ...]
    runtimes: tuple[Runtime, ...]
    other_tools: Mapping[str, str]
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    direct: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()

    @property
    def created(self) -> datetime:
        """When the exec began."""
        return datetime.fromtimestamp(self.subject.time, UTC)

    @property
    def document_id(self) -> uuid.UUID:
        """The document's own id, which depends on nothing but the exec."""
        return uuid.uuid5(uuid.NAMESPACE_URL, f"{NAMESPACE}/{self.subject.sandbox_id}/{self.subject.exec_id}")

    @property
    def program(self) -> str:
        """What the exec ran, for a person to read; never empty."""
        return self.subject.program or "exec"


def collect(subject: SbomSubject, locks: Iterable[QilaLock], unmanaged: Iterable[LockedPackage]) -> Content:
    """The content of an SBOM; the order of locks and packages does not matter."""
    given = sorted(locks, key=lambda lock: lock.ecosystem)
    managed = merged_packages(package for lock in given for package in lock.packages)
    components = [
        *(_component(package.purl, package, managed=True) for package in managed),
        # The same package may lie in both places; a program imports the one that its path finds first.
        *(_component(f"unmanaged:{item.purl}", item, managed=False) for item in merged_packages(unmanaged)),
    ]
    tools = {name: tool_version for lock in given for name, tool_version in sorted(lock.toolchain.items())}
    needs = _needs(components)
    required = {ref for refs in needs.values() for ref in refs}
    # A lock names the tool that interprets its packages as it names the ecosystem.
    interpreters = sorted({lock.ecosystem for lock in given} & tools.keys())
    return Content(
        subject=subject,
        components=tuple(components),
        runtimes=tuple(Runtime(name=name, version=tools[name]) for name in interpreters),
        other_tools={name: tools[name] for name in sorted(tools.keys() - set(interpreters))},
        needs=needs,
        direct=tuple(item.ref for item in components if item.managed and item.package.direct),
        loose=tuple(
            item.ref for item in components if item.ref not in required and not (item.managed and item.package.direct)
        ),
    )


def _component(ref: str, package: LockedPackage, *, managed: bool) -> Component:
    parsed = {text: parse_hash(text) for text in package.hashes}
    return Component(
        ref=ref,
        package=package,
        managed=managed,
        hashes=tuple(sorted(item for item in parsed.values() if item)),
        other_hashes=tuple(sorted(text for text, item in parsed.items() if not item)),
    )


@lru_cache(maxsize=4096)
def license_expression(text: str) -> str | None:
    """The SPDX expression of a lock in its normal form; None for what is none, as NOASSERTION."""
    return spdx(text)


def to_json(document: Mapping[str, Any]) -> bytes:
    """A document with each entry of its lists on a line of its own: large ones are written in a second or two.

    All is ASCII: what strangers wrote cannot steer a terminal.
    """
    parts = []
    for key, value in sorted(document.items()):
        entries = ",\n".join(json.dumps(item, sort_keys=True) for item in value) if isinstance(value, list) else ""
        body = f"[\n{entries}\n]" if entries else json.dumps(value, sort_keys=True)
        parts.append(f"{json.dumps(key)}: {body}")
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def _needs(components: Sequence[Component]) -> dict[str, tuple[str, ...]]:
    """Who requires whom, as far as both are there; a package's requirers are sought on its own side first."""
    refs = {(item.package.purl, item.managed): item.ref for item in components}
    found: dict[str, set[str]] = defaultdict(set)
    for item in components:
        for purl in item.package.required_by:
            requirer = refs.get((purl, item.managed)) or refs.get((purl, not item.managed))
            if requirer and requirer != item.ref:
                found[requirer].add(item.ref)
    return {ref: tuple(sorted(needed)) for ref, needed in sorted(found.items())}
