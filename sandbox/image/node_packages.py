"""The package managers that come from npm: reads and renews their pins, and fetches what is pinned.

Usage: node_packages.py [--upgrade]

Fills in the pins that node-packages.toml lacks; with `--upgrade` all of them. Needs nothing but the standard library
and the machine's own trust store (or SSL_CERT_FILE).
"""

import base64
import hashlib
import json
import re
import ssl
import sys
import tomllib
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from services.executor.egress.ecosystems.npm_paths import (  # the checkout is put on the path above
    packument_path,
    tarball_path,
    usual_file,
)
from services.executor.egress.registries import load_registries

LOCK = Path(__file__).with_name("node-packages.toml")
TIMEOUT_SECONDS = 60
MAX_BYTES = 256 * 1024**2
ATTEMPTS = 3
_KEYS = ("name", "goes-with", "needed-by", "machine", "version", "integrity")
_PIN = re.compile(r"sha512-[A-Za-z0-9+/]{86}==")
# `^1.2.3` and `~1.2.3`: as much of a version as may not change, and the least version.
_RANGE = re.compile(r"(?P<operator>[~^])(?P<least>\d+\.\d+\.\d+)")


class NodePackagesError(Exception):
    """A pin, or what npm's registry sent for it, cannot be used."""

    def __init__(self, *, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name = name
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


@dataclass(frozen=True, kw_only=True)
class NodePackage:
    """One package; `machine` as `platform.machine()` says it, None for every machine. Without pins, both are empty."""

    name: str
    version: str
    integrity: str
    goes_with: str | None = None
    machine: str | None = None
    needed_by: str | None = None

    @property
    def file(self) -> str:
        """The name that its tarball has on disk: the package's own, with no slash in it."""
        return f"{self.name.replace('/', '+')}.tgz"


def read_packages(path: Path = LOCK) -> list[NodePackage]:
    """Read the pins."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["package"]
    return [NodePackage(**{key.replace("-", "_"): value for key, value in table.items()}) for table in tables]


def render_packages(packages: Iterable[NodePackage], head: str) -> str:
    """The file with these pins below its comments."""
    tables = [
        "\n[[package]]\n"
        + "".join(
            f'{key} = "{value}"\n' for key in _KEYS if (value := getattr(package, key.replace("-", "_"))) is not None
        )
        for package in packages
    ]
    return head + "".join(tables)


def download(packages: Iterable[NodePackage], target: Path, machine: str) -> None:
    """Fetch into the directory `target` what this machine needs, each under its `file` name, checked against its pin.

    Raises:
        NodePackagesError: there is no pin, npm's registry does not answer, or what it sends is something else.
    """
    target.mkdir(parents=True)
    for package in packages:
        if package.machine in {None, machine}:
            content = _get(package.name, tarball_path(package.name, usual_file(package.name, package.version)))
            check(package, content)
            (target / package.file).write_bytes(content)


def check(package: NodePackage, content: bytes) -> None:
    """Raise NodePackagesError unless these are the pinned bytes."""
    if not _PIN.fullmatch(package.integrity):
        raise NodePackagesError(name=package.name, problem="has no pin; run `make requirements`")
    if "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode() != package.integrity:
        raise NodePackagesError(name=package.name, problem=f"version {package.version} is not what was pinned")


def pin(packages: list[NodePackage], *, upgrade: bool) -> list[NodePackage]:
    """The packages with every pin filled in, or with every pin new.

    Raises:
        NodePackagesError: npm's registry does not answer, or lacks the version that a package is to go with.
    """
    pinned: dict[str, NodePackage] = {}
    for package in packages:
        leader = None if package.goes_with is None else pinned[package.goes_with]
        user = None if package.needed_by is None else pinned[package.needed_by]
        is_current = package.version and (leader is None or leader.version == package.version)
        pinned[package.name] = package if is_current and not upgrade else _renew(package, leader, user)
    return list(pinned.values())


def _renew(package: NodePackage, leader: NodePackage | None, user: NodePackage | None) -> NodePackage:
    try:
        page: Any = _page(package.name)
        if user is not None:
            wanted = _page(user.name)["versions"][user.version]["dependencies"][package.name]
            version = newest_allowed(package.name, page["versions"], wanted)
        else:
            version = page["dist-tags"]["latest"] if leader is None else leader.version
        integrity = page["versions"][version]["dist"]["integrity"]
    except KeyError as error:
        raise NodePackagesError(name=package.name, problem=f"npm's page lacks {error}") from error
    except (TypeError, ValueError) as error:
        raise NodePackagesError(name=package.name, problem="npm's page is no packument") from error
    if not isinstance(integrity, str) or not _PIN.fullmatch(integrity):
        raise NodePackagesError(name=package.name, problem="npm gives no SHA-512")
    return replace(package, version=version, integrity=integrity)


def newest_allowed(name: str, versions: Iterable[str], wanted: str) -> str:
    """The newest release that a range of the simple kinds allows; raises NodePackagesError if none does."""
    match = _RANGE.fullmatch(wanted)
    least = _numbers(match["least"]) if match else None
    if match is None or least is None:
        raise NodePackagesError(name=name, problem=f"no version can be told from {wanted!r}")
    # A caret keeps everything up to the first number that is not 0.
    fixed = 2 if match["operator"] == "~" else next((i for i, part in enumerate(least) if part), 2) + 1
    releases = [numbers for version in versions if (numbers := _numbers(version))]
    allowed = [numbers for numbers in releases if numbers[:fixed] == least[:fixed] and numbers >= least]
    if not allowed:
        raise NodePackagesError(name=name, problem=f"npm has no version that {wanted} allows")
    return ".".join(str(number) for number in max(allowed))


def _numbers(version: str) -> tuple[int, ...] | None:
    """None for pre-releases."""
    return tuple(int(part) for part in version.split(".")) if re.fullmatch(r"\d+\.\d+\.\d+", version) else None


def _page(name: str) -> Any:
    return json.loads(_get(name, packument_path(name)))


def _get(name: str, path: str) -> bytes:
    """A document of npm's registry; asked for again if the connection fails."""
    url = load_registries().npm.url("registry") + path
    failure: OSError | None = None
    for _ in range(ATTEMPTS):
        try:
            # S310: the scheme is https, as the registries file is checked to say.
            with urllib.request.urlopen(  # noqa: S310
                url, timeout=TIMEOUT_SECONDS, context=ssl.create_default_context()
            ) as response:
                content: bytes = response.read(MAX_BYTES + 1)
        except OSError as error:
            failure = error
            continue
        if len(content) > MAX_BYTES:
            raise NodePackagesError(name=name, problem=f"more than {MAX_BYTES} bytes")
        return content
    raise NodePackagesError(name=name, problem=f"npm's registry does not answer ({failure})") from failure


def main(arguments: list[str]) -> int:
    """Renews the pins in place."""
    text = LOCK.read_text(encoding="utf-8")
    head = text[: text.index("\n[[package]]")]
    try:
        packages = pin(read_packages(), upgrade="--upgrade" in arguments)
    except NodePackagesError as error:
        sys.stderr.write(f"node_packages: {error}\n")
        return 1
    LOCK.write_text(render_packages(packages, head), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
