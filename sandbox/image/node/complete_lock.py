"""Completes a lock that names packages, versions and perhaps hashes, with what npm's registry says of them.

Usage: complete_lock.py REGISTRY

Reads and writes ./package-lock.json (version 3). To each package come the fields that npm installs by: `integrity`,
`bin`, `os`, `cpu`, `libc`, `engines`, `hasInstallScript` and `bundleDependencies`. What the lock says stays; where a
hash of the lock is not the registry's, or a version is not there, a line says so and the exit code is 1.
"""

import base64
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

LOCK = Path("package-lock.json")
ACCEPT = "application/vnd.npm.install-v1+json"
AT_ONCE = 12
TIMEOUT_SECONDS = 60
PAGE_LIMIT_BYTES = 128 * 1024 * 1024
WORDS_LIMIT = 500
LOOKED_UP_EACH = 25
COPIED = ("bin", "os", "cpu", "libc", "engines", "hasInstallScript")
KEPT = (*COPIED, "bundleDependencies", "bundledDependencies", "dist")
SHA512 = "sha512-"
MODULES = "node_modules/"


class CannotHonourError(Exception):
    """The registry does not have what the lock names."""


def page(registry: str, name: str, wanted: Collection[str]) -> dict[str, Any]:
    """Of the registry's page of a package, what is installed by of the wanted versions: a page can be very large."""
    url = f"{registry}{urllib.parse.quote(name, safe='@')}"
    request = urllib.request.Request(url, headers={"Accept": ACCEPT})  # noqa: S310 -- the sandbox's own door
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 -- as above
            content = response.read(PAGE_LIMIT_BYTES + 1)
        versions = json.loads(content)["versions"]
    except urllib.error.HTTPError as error:
        words = error.read(WORDS_LIMIT).decode("utf-8", "replace").strip()
        raise CannotHonourError(f"{name}: HTTP {error.code}: {words}") from error
    except OSError as error:
        raise CannotHonourError(f"{name}: the registry does not answer: {error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CannotHonourError(f"{name}: the registry's page cannot be read") from error
    if not isinstance(versions, dict):
        return {}
    found = {version: versions[version] for version in wanted if isinstance(versions.get(version), dict)}
    return {version: {key: release[key] for key in KEPT if key in release} for version, release in found.items()}


def check_hash(label: str, locked: str, release: dict[str, Any]) -> str:
    """The integrity to install by: the registry's, if it is what the lock says, or the lock's, if that says more."""
    dist = release.get("dist")
    dist = dist if isinstance(dist, dict) else {}
    theirs = str(dist.get("integrity") or "")
    known = {*theirs.split(), f"sha1-{sha1_base64(str(dist.get('shasum') or ''))}"}
    for digest in locked.split():
        algorithm = digest.partition("-")[0]
        same_kind = [other for other in known if other.startswith(f"{algorithm}-")]
        if same_kind and digest not in same_kind:
            raise CannotHonourError(f"{label}: the lock says {digest}, the registry has {same_kind[0]}")
        if not same_kind:
            return locked
    return theirs or locked


def sha1_base64(digest: str) -> str:
    """A hexadecimal digest as npm's locks write it."""
    try:
        return base64.b64encode(bytes.fromhex(digest)).decode()
    except ValueError:
        return ""


def complete(location: str, entry: dict[str, Any], versions: dict[str, Any]) -> dict[str, Any]:
    """One package of the lock with the registry's fields."""
    label = f"{name_of(location, entry)}@{entry['version']}"
    release = versions.get(entry["version"])
    if not isinstance(release, dict):
        raise CannotHonourError(f"{label}: npm has no such version, or policy leaves it out")
    added = {key: release[key] for key in COPIED if release.get(key)}
    bundled = release.get("bundleDependencies") or release.get("bundledDependencies")
    if isinstance(bundled, list) and bundled:
        added["bundleDependencies"] = bundled
    added["integrity"] = check_hash(label, str(entry.get("integrity") or ""), release)
    return {**entry, **added}


def name_of(location: str, entry: dict[str, Any]) -> str:
    """The package's own name; the directory's is another for an alias."""
    return str(entry.get("name") or location.rpartition(MODULES)[2])


def is_bundled(location: str, packages: dict[str, Any]) -> bool:
    """Whether a package above brings it in its own archive."""
    while location.rpartition(f"/{MODULES}")[0]:
        location = location.rpartition(f"/{MODULES}")[0]
        if packages.get(location, {}).get("bundleDependencies"):
            return True
    return False


def settle_bundled(packages: dict[str, Any]) -> dict[str, Any]:
    """What came in a package's archive comes with it again; it is listed only where npm expects that."""
    return {
        location: entry
        for location, entry in packages.items()
        if not entry.get("inBundle") or is_bundled(location, packages)
    }


def fetch_all(names: list[str], fetch: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """What `fetch` has of all packages; raises the first CannotHonourError in the order of the names."""
    pages = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for count, (name, versions) in enumerate(zip(names, pool.map(fetch, names), strict=True), start=1):
            pages[name] = versions
            if count % LOOKED_UP_EACH == 0 or count == len(names):
                sys.stdout.write(f"Looked up {count} packages\n")
                sys.stdout.flush()
    return pages


def main(arguments: list[str]) -> int:
    """Answers with an exit code: 0 completed, 1 the lock cannot be honoured, 2 wrong arguments."""
    if len(arguments) != 1:
        sys.stderr.write("usage: complete_lock.py REGISTRY\n")
        return 2
    lock = json.loads(LOCK.read_bytes())
    packages = lock["packages"]
    wanted = {
        location: entry
        for location, entry in packages.items()
        if location.startswith(MODULES) and not entry.get("inBundle")
    }
    versions: dict[str, set[str]] = {}
    for location, entry in wanted.items():
        versions.setdefault(name_of(location, entry), set()).add(entry["version"])
    try:
        pages = fetch_all(sorted(versions), lambda name: page(arguments[0], name, versions[name]))
        for location, entry in wanted.items():
            packages[location] = complete(location, entry, pages[name_of(location, entry)])
    except CannotHonourError as error:
        sys.stderr.write(f"lock: {error}\n")
        return 1
    lock["packages"] = settle_bundled(packages)
    LOCK.write_text(json.dumps(lock, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
