"""What the resolver knows of installing Node packages: locks of four tools, inventories, npm's words."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from services.resolver.errors import InstallMismatchError, InventoryError, LockError, ManifestError
from services.resolver.lockfile import lock_to_json
from services.resolver.model import (
    Context,
    FailureReason,
    InstallStage,
    Lockfile,
    PackageEvent,
    StageProgress,
    StepKind,
    Target,
)
from services.resolver.node.failures import explain_failure
from services.resolver.node.graph import Graph, Node, place
from services.resolver.node.installer import given_lock_files, install_commands
from services.resolver.node.licenses import license_of
from services.resolver.node.lock import (
    install_script_packages,
    lock_drift,
    locked_packages,
    public_lock,
    read_lock,
    reads_lock,
    unmanaged_packages,
    verify_install,
)
from services.resolver.node.names import hashes_of, integrity_of, is_location, purl_of
from services.resolver.node.progress import parse_installer_line
from services.resolver.node.project_lock import without_development
from services.resolver.plan import plan

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCKS = Path(__file__).resolve().parents[2] / "cases/node_locks"
PACKAGE_JSON = (LOCKS / "package.json").read_bytes()
FOREIGN = {"yarn.lock": "yarn.lock", "berry.lock": "yarn.lock", "pnpm-lock.yaml": "pnpm-lock.yaml"}
DIRECT = ("debug@4.3.4", "ms@^2.0.0", "lp@npm:left-pad@1.2.0")
SHA512 = "sha512-" + "A" * 86 + "=="
V3 = b'{"lockfileVersion": 3, "packages": {'
ENVIRONMENT = "/sandbox/.qila/env/node/f"


def foreign(name: str) -> Lockfile:
    return Lockfile(name=FOREIGN[name], content=(LOCKS / name).read_bytes())


def npm_lock(packages: dict[str, Any], **root: Any) -> Lockfile:
    document = {"lockfileVersion": 3, "packages": {"": root, **packages}}
    return Lockfile(name="package-lock.json", content=json.dumps(document, indent=1).encode())


def row(location: str, version: str, name: str = "", **fields: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"dependencies": [], "optional_dependencies": [], "peer_dependencies": [], "bin": []}
    name = name or location.rpartition("node_modules/")[2]
    base = {"location": location, "name": name, "version": version, "license": "MIT", "has_install_script": False}
    return empty | base | fields


def inventory(*rows: dict[str, Any]) -> bytes:
    return json.dumps({"format": 1, "ecosystem": "node", "packages": rows}).encode()


INSTALLED = inventory(
    row("node_modules/debug", "4.3.4", dependencies=["ms"]),
    row("node_modules/debug/node_modules/ms", "2.1.2"),
    row("node_modules/lp", "1.2.0", "left-pad", license="WTFPL"),
    row("node_modules/ms", "2.0.0"),
)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_lock_of_another_tool_becomes_the_tree_that_it_means(name: str) -> None:
    assert lock_drift(PACKAGE_JSON, foreign(name)) == []
    commands = install_commands(
        ENVIRONMENT, package_json=PACKAGE_JSON, lock=foreign(name), previous_lock=None, scripts=True, frozen=True
    )
    staged = {file.path: json.loads(file.content) for file in commands.staged}
    packages = staged["package-lock.json"]["packages"]
    places = {location: (entry.get("name"), entry["version"]) for location, entry in packages.items() if location}
    assert places == {
        "node_modules/debug": (None, "4.3.4"),
        "node_modules/debug/node_modules/ms": (None, "2.1.2"),
        "node_modules/fsevents": (None, "2.3.3"),
        "node_modules/lp": ("left-pad", "1.2.0"),
        "node_modules/ms": (None, "2.0.0"),
    }
    assert [at for at, entry in packages.items() if entry.get("optional")] == ["node_modules/fsevents"]
    assert packages["node_modules/debug"]["dependencies"] == {"ms": "2.1.2"}
    assert ("integrity" in packages["node_modules/ms"]) == (name != "berry.lock")
    wanted = {"debug": "4.3.4", "lp": "npm:left-pad@1.2.0", "ms": "2.0.0"}
    assert staged["package.json"]["dependencies"] == packages[""]["dependencies"] == wanted
    assert [step.kind for step in commands.steps] == [StepKind.SOLVE, StepKind.INSTALL]
    assert not commands.native_lock_staged


@pytest.mark.parametrize("name", FOREIGN)
def test_a_lock_of_another_tool_is_read(name: str) -> None:
    assert reads_lock(foreign(name))
    assert reads_lock(Lockfile(name="given", content=foreign(name).content))
    packages = {package.purl: package for package in read_lock(foreign(name), {})}
    assert len(packages) == 5
    assert packages["pkg:npm/ms@2.1.2"].required_by == ("pkg:npm/debug@4.3.4",)
    assert [purl for purl, package in packages.items() if not package.direct] == ["pkg:npm/ms@2.1.2"]
    assert bool(packages["pkg:npm/ms@2.0.0"].hashes) == (name != "berry.lock")


@pytest.mark.parametrize("name", FOREIGN)
def test_a_manifest_that_moved_on_is_told(name: str) -> None:
    manifest = json.loads(PACKAGE_JSON)
    manifest["dependencies"] |= {"ms": "^2.1.0", "once": "1"}
    differences = dict(lock_drift(json.dumps(manifest).encode(), foreign(name)))
    assert sorted(differences) == ["ms", "once"]
    assert "^2.1.0" in differences["ms"]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_lock_that_the_manifest_left_behind_is_preferred_as_far_as_it_goes(name: str) -> None:
    manifest = json.loads(PACKAGE_JSON)
    manifest["dependencies"]["once"] = "1"
    package_json = json.dumps(manifest).encode()
    options: dict[str, Any] = {"package_json": package_json, "previous_lock": None, "scripts": True, "frozen": False}
    commands = install_commands(ENVIRONMENT, lock=foreign(name), **options)
    staged = {file.path: json.loads(file.content) for file in commands.staged}
    assert staged["package.json"]["dependencies"] == manifest["dependencies"]
    assert staged["package-lock.json"]["packages"]["node_modules/ms"]["version"] == "2.0.0"
    assert [step.kind for step in commands.steps] == [StepKind.SOLVE, StepKind.INSTALL]
    assert not commands.native_lock_staged
    if name == "yarn.lock":
        with pytest.raises(LockError, match="nothing answers once@1"):
            install_commands(ENVIRONMENT, lock=foreign(name), **options | {"frozen": True})


def test_npms_lock_is_read_with_its_drift_and_scripts() -> None:
    entry = {"version": "1.0.0", "integrity": f"sha1-x {SHA512}", "license": "MIT", "hasInstallScript": True}
    inner = {"version": "2.0.0", "dependencies": {"a": "*"}}
    lock = npm_lock({"node_modules/a": entry, "node_modules/@s/b": inner}, devDependencies={"a": "^1", "c": "1"})
    first, second = sorted(read_lock(lock, {}), key=lambda package: package.name, reverse=True)
    assert (first.purl, first.direct, first.license, first.hashes) == (
        "pkg:npm/a@1.0.0", True, "MIT", ("sha512:" + "0" * 128,),
    )  # fmt: skip
    assert first.required_by == (second.purl,) == ("pkg:npm/%40s/b@2.0.0",)
    assert install_script_packages(lock.content) == ("a@1.0.0",)
    drift = lock_drift(b'{"dependencies": {"a": "^2"}}', lock)
    assert drift == [
        ("a", "package.json asks for ^2, the lock was made for ^1"),
        ("c", "the lock has it, package.json does not ask for it"),
    ]


def test_a_lock_of_version_1_is_read() -> None:
    tree = {"a": {"version": "1.0.0", "requires": {"b": "2"}, "dependencies": {"b": {"version": "2.0.0"}}}}
    lock = Lockfile(name="x", content=json.dumps({"lockfileVersion": 1, "dependencies": tree}).encode())
    assert reads_lock(lock)
    packages = {package.name: package for package in read_lock(lock, {})}
    assert packages["b"].locations == ("node_modules/a/node_modules/b",)
    assert packages["b"].required_by == ("pkg:npm/a@1.0.0",)
    assert lock_drift(b'{"dependencies": {"b": "2"}}', lock)[0][0] == "b"


def test_without_a_lock_one_step_solves_and_installs() -> None:
    manifest = b'{"dependencies": {"a": "1"}}'
    options: dict[str, Any] = {"package_json": manifest, "lock": None, "scripts": True, "frozen": False}
    steps = [install_commands(ENVIRONMENT, previous_lock=previous, **options).steps for previous in (None, b"{}")]
    assert [[step.kind for step in each] for each in steps] == [[StepKind.INSTALL]] * 2
    first, second = (set(each[0].argv) for each in steps)
    assert {"npm", "install"} < first == second
    assert not install_commands(ENVIRONMENT, previous_lock=b"{}", **options).native_lock_staged


def test_addresses_of_a_lock_lead_nowhere() -> None:
    entry = {"version": "1.0.0", "resolved": "https://registry.example/a/-/a-1.0.0.tgz", "integrity": SHA512}
    lock = npm_lock({"node_modules/a": entry}, dependencies={"a": "1"})
    manifest = b'{"scripts": {"postinstall": "x"}, "dependencies": {"a": "1"}}'
    commands = install_commands(
        ENVIRONMENT, package_json=manifest, lock=lock, previous_lock=None, scripts=False, frozen=True
    )
    files = {file.path: json.loads(file.content) for file in commands.staged}
    assert files["package-lock.json"]["packages"]["node_modules/a"] == {"version": "1.0.0", "integrity": SHA512}
    assert "scripts" not in files["package.json"]
    assert [step.kind for step in commands.steps] == [StepKind.INSTALL]
    assert commands.native_lock_staged
    assert "--ignore-scripts" in commands.steps[0].argv


@pytest.mark.parametrize(
    ("name", "content", "line", "words"),
    [
        ("package-lock.json", b'{\n"lockfileVersion": 9}', 2, "lockfileVersion 9 is unknown"),
        ("package-lock.json", b'{"a":\n]', 2, "is not JSON"),
        ("package-lock.json", b"[" * 100_000, 0, "nested too deep"),
        ("package-lock.json", V3 + b'\n"node_modules/../a": {"version": "1"}}}', 2, "no place"),
        ("package-lock.json", V3 + b'\n\n"node_modules/a": {"version": 1}}}', 3, "no text"),
        ("yarn.lock", b"# yarn lockfile v1\n\na@1:\n  what is this\n   odd", 5, "is no line of yarn's"),
        ("yarn.lock", b'# yarn lockfile v1\n"a@github:x/y":\n  version "1.0.0"\n', 2, "not a package"),
        ("yarn.lock", b'__metadata:\n  version: 8\n\n"a@file:x":\n  resolution: "a@file:x"\n', 4, "not a package"),
        ("pnpm-lock.yaml", b"lockfileVersion: '5.4'\n", 1, "pnpm 8 or later"),
        ("pnpm-lock.yaml", b"lockfileVersion: '9.0'\na: &x [1]\nb: *x\n", 3, "alias"),
        ("pnpm-lock.yaml", b"lockfileVersion: '9.0'\na: [\n", 3, "is not YAML"),
        ("pnpm-lock.yaml", b"lockfileVersion: '9.0'\na: " + b"[" * 900, 2, "levels"),
        ("pnpm-lock.yaml", b"lockfileVersion: '9.0'\npatchedDependencies: {}\n", 2, "patches"),
        ("pnpm-lock.yaml", b"\xff", 1, "is not UTF-8"),
    ],
)  # fmt: skip
def test_a_broken_lock_is_one_error_with_its_line(name: str, content: bytes, line: int, words: str) -> None:
    with pytest.raises(LockError) as caught:
        read_lock(Lockfile(name=name, content=content), {})
    assert (caught.value.line, caught.value.name) == (line, name)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [{"version": "1.0.0", "resolved": "git+ssh://git@host.example/a.git#1"}, {"resolved": "packages/a", "link": True}],
)
def test_what_no_registry_has_is_refused_with_its_line(entry: dict[str, object]) -> None:
    lock = npm_lock({"node_modules/a": entry}, dependencies={"a": "1"})
    with pytest.raises(LockError, match="not a package of npm's registry") as caught:
        install_commands(ENVIRONMENT, package_json=b"{}", lock=lock, previous_lock=None, scripts=True, frozen=True)
    assert caught.value.line == 9


ENTRIES = {"": {"dependencies": {"a": "1"}}, "node_modules/a": {"version": "1.0.0", "dependencies": {"b": "2"}}}
TREE = {"a": {"version": "1.0.0", "requires": {"b": "2"}, "dependencies": {"b": {"version": "2.0.0", "dev": True}}}}
WRONG: list[Any] = [[], [1], 1, "x", None, {}, {"x": 1}, {"a": {"dependencies": []}}, "\ud800"]


def changed(value: Any, wrong: Any) -> Iterator[Any]:
    """The value with each of its parts replaced."""
    yield wrong
    if isinstance(value, dict):
        for key, part in value.items():
            yield from ({**value, key: other} for other in changed(part, wrong))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_whatever_stands_in_a_lock_it_is_read_or_refused(version: int) -> None:
    document = {"lockfileVersion": version, "packages": ENTRIES, "dependencies": TREE}
    package_json = b'{"dependencies": {"a": "1"}}'
    options: dict[str, Any] = {"package_json": package_json, "previous_lock": None, "scripts": True, "frozen": True}
    refused = 0
    for lock in (
        Lockfile(name="package-lock.json", content=json.dumps(other).encode())
        for wrong in WRONG
        for other in changed(document, wrong)
    ):
        files = {"i.js": b"", "package.json": package_json, lock.name: lock.content}
        context = Context(toolchain={"python": "3", "node": "24.11.0", "npm": "11.6.1"})
        try:
            read_lock(lock, {})
            without_development(lock)
            install_commands(ENVIRONMENT, lock=lock, **options)
        except LockError:
            refused += 1
        with suppress(LockError, ManifestError):
            plan(files, list(files), Target(), context)
        with suppress(LockError):
            plan({"i.js": b""}, ["i.js"], Target(), dataclasses.replace(context, given_lock=lock))
    assert refused > 50


def test_locks_that_nest_without_end_are_refused() -> None:
    deep = npm_lock({"/".join(["node_modules/a"] * 8_000): {"version": "1.0.0"}})
    tree: dict[str, Any] = {"version": "1.0.0"}
    for _ in range(100):
        tree = {"version": "1.0.0", "dependencies": {"a": tree}}
    older = Lockfile(name="x", content=json.dumps({"lockfileVersion": 1, "dependencies": {"a": tree}}).encode())
    for lock in (deep, older):
        with pytest.raises(LockError, match="64 levels"):
            read_lock(lock, {})


@pytest.mark.timeout(20)
def test_a_yarn_lock_costs_no_more_than_its_length() -> None:
    entries = "".join(f'"p{number}@1":\n  version "1.0.0"\n  dependencies:\n    p0 "9"\n\n' for number in range(20_000))
    lock = Lockfile(name="yarn.lock", content=b"# yarn lockfile v1\n" + entries.encode())
    assert len(read_lock(lock, {})) == 20_000


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_broken_manifest_is_one_error(content: bytes) -> None:
    with pytest.raises(ManifestError, match=r"package\.json"):
        install_commands(ENVIRONMENT, package_json=content, lock=None, previous_lock=None, scripts=True, frozen=False)


def test_a_tree_that_grows_into_itself_is_refused() -> None:
    names = [("a1", "b1"), ("b1", "a2"), ("a2", "b2"), ("b2", "a1")]
    nodes = {key: Node(name=key[0], version=key[1], needs={needed[0]: needed}) for key, needed in names}
    root = Node(name="", version="", needs={"a": "a1", "b": "b1"})
    with pytest.raises(LockError, match="levels"):
        place(Graph(nodes=nodes, root=root))


def native(*packages: tuple[str, dict[str, Any]]) -> bytes:
    return npm_lock(dict(packages)).content


def test_what_is_installed_is_described_the_same_whoever_locked_it() -> None:
    lock = native(
        ("node_modules/debug", {"version": "4.3.4", "integrity": SHA512}),
        ("node_modules/debug/node_modules/ms", {"version": "2.1.2"}),
        ("node_modules/lp", {"version": "1.2.0", "name": "left-pad"}),
        ("node_modules/ms", {"version": "2.0.0"}),
        ("node_modules/fsevents", {"version": "2.3.3", "optional": True}),
    )
    verify_install(lock, INSTALLED, {})
    packages = {package.purl: package for package in locked_packages(DIRECT, lock, INSTALLED, {})}
    assert packages["pkg:npm/ms@2.1.2"].locations == ("node_modules/debug/node_modules/ms",)
    assert packages["pkg:npm/ms@2.1.2"].required_by == ("pkg:npm/debug@4.3.4",)
    assert packages["pkg:npm/ms@2.0.0"].required_by == packages["pkg:npm/ms@2.0.0"].locations == ()
    assert packages["pkg:npm/left-pad@1.2.0"].locations == ("node_modules/lp",)
    assert [purl for purl, package in packages.items() if not package.direct] == ["pkg:npm/ms@2.1.2"]
    assert {package.purl for package in unmanaged_packages(INSTALLED).packages} == set(packages)
    content = lock_to_json("node", packages.values(), {"node": "24"})
    package_json, again = given_lock_files(Lockfile(name="qila.lock.json", content=content))
    assert json.loads(package_json)["dependencies"]["lp"] == "npm:left-pad@1.2.0"
    rebuilt = json.loads(again)["packages"]
    assert rebuilt["node_modules/debug"] == {
        "version": "4.3.4", "integrity": SHA512, "dependencies": {"ms": "2.1.2"},
    }  # fmt: skip
    assert set(rebuilt) == {"", *(row["location"] for row in json.loads(INSTALLED)["packages"])}
    verify_install(again, INSTALLED, {})


@pytest.mark.parametrize(
    ("packages", "field", "shown"),
    [
        ({"node_modules/ms": None}, "unexpected", ("ms@2.0.0",)),
        ({"node_modules/ms": {"version": "2.0.1"}}, "other_version", ("ms: ms@2.0.0",)),
        ({"node_modules/lp": {"version": "1.2.0"}}, "other_version", ("lp: left-pad@1.2.0",)),
        ({"node_modules/once": {"version": "1.4.0"}}, "absent", ("once@1.4.0",)),
    ],
)
def test_another_package_than_the_lock_has_is_a_mismatch(
    packages: dict[str, Any], field: str, shown: tuple[str, ...]
) -> None:
    good: dict[str, Any] = {
        "node_modules/debug": {"version": "4.3.4"},
        "node_modules/debug/node_modules/ms": {"version": "2.1.2"},
        "node_modules/lp": {"version": "1.2.0", "name": "left-pad"},
        "node_modules/ms": {"version": "2.0.0"},
    }
    changed = {location: entry for location, entry in (good | packages).items() if entry is not None}
    with pytest.raises(InstallMismatchError) as caught:
        verify_install(npm_lock(changed).content, INSTALLED, {})
    assert {key: value for key, value in dataclasses.asdict(caught.value).items() if value} == {field: shown}


def test_what_came_inside_a_locked_package_belongs_to_it() -> None:
    lock = native(("node_modules/a", {"version": "1.0.0"}))
    found = inventory(row("node_modules/a", "1.0.0"), row("node_modules/a/node_modules/b", "2.0.0"))
    verify_install(lock, found, {})
    assert [package.hashes for package in locked_packages(["a@1"], lock, found, {})] == [(), ()]


@pytest.mark.parametrize(
    "rows",
    [
        b"[]", b'{"format": 1}', b'{"format": 1, "ecosystem": "python", "packages": []}', b"[" * 100_000,
        inventory(row("/etc/a", "1")), inventory(row("node_modules/../../a", "1", "a")),
        inventory(row("node_modules/a", "1"), row("node_modules/a", "1")),
        inventory(row("node_modules/a", "1", license=7)), inventory(row("node_modules/a", "1 2")),
        inventory(row("node_modules/a", "1", "../a")), inventory(row("node_modules/a", "1", dependencies="b")),
        inventory(row("node_modules/a", "1", license="\ud800")),
    ],
)  # fmt: skip
def test_an_inventory_that_is_none_is_refused(rows: bytes) -> None:
    with pytest.raises(InventoryError):
        locked_packages([], npm_lock({}).content, rows, {})


def test_what_lies_about_hides_no_package() -> None:
    odd = [row("node_modules/a", "1", name) for name in ("../a", "a b")]
    odd += [
        row("node_modules/b", "1") | {"version": None},
        row("/etc", "1", "c"),
        row("node_modules/d", "1", license=7),
    ]
    found = unmanaged_packages(inventory(*odd, row("node_modules/good", "1.0.0")))
    assert [package.purl for package in found.packages] == ["pkg:npm/good@1.0.0"]
    assert not found.complete
    for none in (b"", b"[]", b'{"format": 1, "ecosystem": "node", "packages": {}}'):
        with pytest.raises(InventoryError):
            unmanaged_packages(none)


def test_what_node_would_load_though_no_lock_has_it_is_unexpected() -> None:
    lock = native(("node_modules/a", {"version": "1.0.0"}))
    places = ["node_modules/a/node_modules/fixture", "node_modules/evil", "node_modules/evil.js"]
    document = json.loads(inventory(row("node_modules/a", "1.0.0"))) | {"unknown": places}
    with pytest.raises(InstallMismatchError) as caught:
        verify_install(lock, json.dumps(document).encode(), {})
    assert caught.value.unexpected == ("evil", "evil.js")
    verify_install(lock, json.dumps(document | {"unknown": places[:1]}).encode(), {})


def test_hashes_and_names() -> None:
    assert integrity_of(hashes_of(SHA512)) == SHA512
    assert hashes_of("sha1-0wpzxrggHY99jnlWupYWCHpo4O4=") == ("sha1:d30a73c6b8201d8f7d8e7956ba9616087a68e0ee",)
    assert hashes_of("sha512-short md5-x") == hashes_of("") == ()
    assert purl_of("@a/b", "1.0.0+x") == "pkg:npm/%40a/b@1.0.0%2Bx"
    assert is_location("node_modules/@a/b/node_modules/c")
    assert not any(map(is_location, ("", "a", "node_modules/", "node_modules/a/b", "node_modules/a/node_modules/..")))


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("MIT", ("MIT", "")),
        (["MIT", "Apache-2.0"], ("Apache-2.0 OR MIT", "")),
        ("(MIT OR CC0-1.0)", ("MIT OR CC0-1.0", "")),
        ("SEE LICENSE IN LICENSE", ("NOASSERTION", "SEE LICENSE IN LICENSE")),
        (["MIT", "mine"], ("NOASSERTION", "MIT; mine")),
        (None, ("NOASSERTION", "")),
        ({"type": "MIT"}, ("NOASSERTION", "")),
    ],
)
def test_licences(field: object, expected: tuple[str, str]) -> None:
    assert license_of(field) == expected


def test_the_doors_address_becomes_the_registrys() -> None:
    lock = b'{"resolved": "http://127.0.0.1:7480/npm/a/-/a-1.tgz"}'
    public = public_lock(lock, {"http://127.0.0.1:7480/npm/": "https://registry.example/"})
    assert public == b'{"resolved": "https://registry.example/a/-/a-1.tgz"}'


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b"Downloading @a/b@1.0.0-rc.1", PackageEvent(action="downloading", name="@a/b", version="1.0.0-rc.1")),
        (b"+ left-pad@1.3.0", PackageEvent(action="installed", name="left-pad", version="1.3.0")),
        (b"Built esbuild@0.28.2", PackageEvent(action="built", name="esbuild", version="0.28.2")),
        (b"Looked up 25 packages", StageProgress(stage=InstallStage.RESOLVING, done=25)),
        (b"added 3 packages in 7s", StageProgress(stage=InstallStage.INSTALLING, done=3, total=3)),
        (b"npm warn deprecated a@1.0.0: no", None),
        (b"+ " + b"a" * 5000 + b"@1", None),
    ],
)
def test_progress(line: bytes, event: object) -> None:
    assert parse_installer_line(StepKind.INSTALL, line) == event


# As npm 11 prints them.
FAILURES = {
    "code E404\n404 Not Found - GET http://127.0.0.1:7480/npm/@no%2fsuch\n404\n"
    "404  The requested resource '@no/such@1' could not be found or you do not have permission to access it.": (
        FailureReason.NOT_FOUND, "@no/such"),
    "code ETARGET\nnotarget No matching version found for left-pad@99.": (FailureReason.NO_SOLUTION, "left-pad"),
    "code E403\n403 403 Forbidden - GET http://127.0.0.1:7480/npm/is-number": (
        FailureReason.NETWORK_DENIED, "is-number"),
    'code ERESOLVE\nERESOLVE unable to resolve dependency tree\n\nWhile resolving: project@0.0.0\n'
    'Found: react@17.0.2\nnode_modules/react\n  react@"17.0.2" from the root project\n\n'
    'Could not resolve dependency:\npeer react@"^18.2.0" from react-dom@18.2.0\n'
        'node_modules/react-dom\n  react-dom@"18.2.0" from the root project': (FailureReason.NO_SOLUTION, "react-dom"),
    "code EUSAGE\n\n`npm ci` can only install packages when your package.json and package-lock.json are in sync.\n\n"
    "Missing: once@1.4.0 from lock file\n\nClean install a project\n\nUsage:\nnpm ci\n  ENOSPC": (
        FailureReason.NO_SOLUTION, "once"),
    "code ENOSPC\nsyscall write\nnospc ENOSPC: no space left on device, write": (FailureReason.OUT_OF_SPACE, None),
    "code ECONNREFUSED\nsyscall connect": (FailureReason.NETWORK_DENIED, None),
    "code ETIMEDOUT\nnetwork request to http://127.0.0.1:7480/npm/a failed": (FailureReason.TIMED_OUT, None),
    "code 1\npath /sandbox/.qila/env/node/f/node_modules/node-sass\ncommand failed\ncommand sh -c node build.js\n"
    "gyp ERR! stack Error: connect ECONNREFUSED, the request timed out": (FailureReason.BUILD_FAILED, "node-sass"),
    "code EBADENGINE\nengine Unsupported engine\nengine Not compatible with your version of node/npm: a@1.0.0": (
        FailureReason.NO_SOLUTION, None),
    "code ENOENT\nsyscall spawn git\npath git": (FailureReason.NETWORK_DENIED, None),
}  # fmt: skip


@pytest.mark.parametrize(("words", "expected"), FAILURES.items(), ids=lambda value: str(value)[:20])
def test_failures(words: str, expected: tuple[FailureReason, str | None]) -> None:
    reason, package = expected
    output = "\n".join(["Looked up 25 packages", *(f"npm error {line}".rstrip() for line in words.split("\n"))])
    failure = explain_failure(StepKind.INSTALL, 1, output.encode())
    assert failure.reason is reason
    assert package is None or package in failure.packages
    assert "Looked up" not in failure.detail
    assert "Usage" not in failure.detail


def test_failures_that_npm_does_not_word() -> None:
    told = explain_failure(StepKind.SOLVE, 1, b"lock: ms@2.0.0: the lock says sha512-a, the registry has sha512-b\n")
    assert (told.reason, told.packages) == (FailureReason.NO_SOLUTION, ("ms",))
    gone = explain_failure(StepKind.SOLVE, 1, b"lock: no-such: HTTP 404: npm has no package no-such.\n")
    assert (gone.reason, gone.packages) == (FailureReason.NOT_FOUND, ("no-such",))
    assert explain_failure(StepKind.INSTALL, 124, b"").reason is FailureReason.TIMED_OUT
    assert explain_failure(StepKind.SOLVE, 7, b"").detail.endswith("exit code 7 and said nothing")
    flood = explain_failure(StepKind.INSTALL, 1, b"npm error code ENOSPC\n" + b"npm error x\n" * 900_000)
    assert len(flood.detail.encode()) <= 8 * 1024
