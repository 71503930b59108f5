"""Installs of Go modules: what is verified, locked, and told of failures and progress."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.resolver.errors import InstallMismatchError, InventoryError, LockError, ResolverError
from services.resolver.go.bundle import bundled, is_lock, precedence, read_lock
from services.resolver.go.failures import explain_failure
from services.resolver.go.licenses import LicenseFile, license_of
from services.resolver.go.lock import compared_packages, locked_packages, unmanaged_packages, verify_install
from services.resolver.go.missing import explain_run
from services.resolver.go.names import module_guess, purl_of
from services.resolver.go.progress import parse_installer_line
from services.resolver.lockfile import lock_to_json, read_qila_lock
from services.resolver.locks import read_any_lock
from services.resolver.model import Context, InstallStage, Lockfile, PackageEvent, StageProgress, StepKind, Target
from services.resolver.plan import plan

TOOLCHAIN = {"go": "1.27.3"}
HASH = "h1:NIvaJDMOsjHA8n1jAhLSgzrAzy1Hgr+hNrb57e+94F0="
OTHER_HASH = "h1:dRaEfpa2VI55EwlIW72hMRHdWouJeRF7TPYhI+AUQjk="
MOD = b"""module example.com/app

go 1.25

require github.com/gin-gonic/gin v1.10.0

require github.com/BurntSushi/toml v1.4.0 // indirect
"""
SUM = f"""github.com/BurntSushi/toml v1.4.0 {OTHER_HASH}
github.com/BurntSushi/toml v1.4.0/go.mod {HASH}
github.com/gin-gonic/gin v1.10.0 {HASH}
github.com/gin-gonic/gin v1.10.0/go.mod {OTHER_HASH}
github.com/old/one v0.1.0/go.mod {HASH}
""".encode()
LOCK = bundled(MOD, SUM)
MIT = """MIT License

Copyright (c) 2020 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction. The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED."""
APACHE = "                                 Apache License\n                           Version 2.0, January 2004\n"
BSD = """Copyright 2009 The Go Authors.

Redistribution and use in source and binary forms, with or without modification, are permitted provided that:
 * Redistributions of source code must retain the above copyright notice
 * Redistributions in binary form must reproduce the above copyright notice"""
BSD_3 = f"""{BSD}
 * Neither the name of Google LLC nor the names of its
contributors may be used to endorse or promote products derived from"""


def row(path: str, version: str, digest: str, *licenses: tuple[str, str]) -> dict[str, Any]:
    return {
        "path": path,
        "version": version,
        "hash": digest,
        "licenses": [{"name": name, "text": text} for name, text in licenses],
    }


GIN = row("github.com/gin-gonic/gin", "v1.10.0", HASH, ("LICENSE", MIT))
TOML = row("github.com/BurntSushi/toml", "v1.4.0", OTHER_HASH, ("COPYING", "Do as you like.\n\nReally."))
EDGES = [
    ["example.com/app", "github.com/gin-gonic/gin@v1.10.0"],
    ["github.com/gin-gonic/gin@v1.10.0", "github.com/BurntSushi/toml@v1.3.0"],
    ["github.com/gin-gonic/gin@v1.9.0", "github.com/gin-gonic/gin@v1.10.0"],
    ["go@1.25", "toolchain@go1.25"],
]


def inventory(*rows: dict[str, Any], edges: list[list[str]] | None = None) -> bytes:
    document = {"format": 1, "ecosystem": "go", "modules": list(rows), "graph": EDGES if edges is None else edges}
    return json.dumps(document).encode()


def test_exactly_the_lock_is_installed() -> None:
    verify_install(LOCK, inventory(GIN, TOML))


@pytest.mark.parametrize(
    ("rows", "facts"),
    [
        ([GIN], {"absent": ("github.com/BurntSushi/toml v1.4.0",)}),
        ([GIN, TOML, row("a.b/c", "v1.0.0", HASH)], {"unexpected": ("a.b/c v1.0.0",)}),
        ([GIN, {**TOML, "version": "v1.4.1"}], {"other_version": ("github.com/BurntSushi/toml v1.4.1",)}),
        ([GIN, {**TOML, "hash": HASH}], {"damaged": ("github.com/BurntSushi/toml v1.4.0",)}),
        ([{**GIN, "hash": ""}, TOML], {"damaged": ("github.com/gin-gonic/gin v1.10.0",)}),
    ],
)
def test_what_is_not_as_locked_is_refused(rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    with pytest.raises(InstallMismatchError) as caught:
        verify_install(LOCK, inventory(*rows))
    assert {name: value for name, value in vars(caught.value).items() if value} == facts


def test_a_lock_without_a_hash_is_never_met() -> None:
    bare = b"\n".join(line for line in SUM.splitlines() if b"gin v1.10.0 h1" not in line)
    with pytest.raises(InstallMismatchError):
        verify_install(bundled(MOD, bare), inventory(GIN, TOML))


def test_packages_of_the_normalised_lock() -> None:
    packages = {item.name: item for item in locked_packages([], LOCK, inventory(GIN, TOML))}
    gin, toml = packages["github.com/gin-gonic/gin"], packages["github.com/BurntSushi/toml"]
    assert (gin.direct, gin.hashes, gin.license, gin.required_by) == (True, (HASH,), "MIT", ())
    assert (toml.direct, toml.license, toml.license_text) == (False, "NOASSERTION", "Do as you like.")
    assert toml.purl == "pkg:golang/github.com/BurntSushi/toml@v1.4.0"
    assert toml.required_by == ("pkg:golang/github.com/gin-gonic/gin@v1.10.0",)
    lock = lock_to_json("go", packages.values(), TOOLCHAIN)
    assert {item.name: item for item in read_qila_lock(lock).packages} == packages


def test_what_the_exec_asked_for_is_direct() -> None:
    packages = locked_packages(["github.com/BurntSushi/toml@latest"], LOCK, inventory(GIN, TOML))
    assert all(item.direct for item in packages)


def test_a_qila_lock_installs_what_it_was_made_from() -> None:
    lock = lock_to_json("go", locked_packages([], LOCK, inventory(GIN, TOML)), TOOLCHAIN)
    given = Lockfile(name="qila.lock.json", content=lock)
    files = {"main.go": b'package main\n\nimport "github.com/gin-gonic/gin"\n\nfunc main() { gin.Default() }\n'}
    planned = plan(files, list(files), Target(), Context(toolchain=TOOLCHAIN, given_lock=given))
    staged = {file.path: file.content for file in planned.staged}
    pinned = {(item.path, item.version, item.hash, item.direct) for item in read_lock(LOCK)}
    made = read_lock(bundled(staged["go.mod"], staged["go.sum"]))
    assert {(item.path, item.version, item.hash, item.direct) for item in made} == pinned
    assert "--keep" in planned.steps[0].argv
    lines = lock.decode().splitlines()
    assert planned.lock_lines
    assert all(item.name in lines[item.line - 1] and item.path == "qila.lock.json" for item in planned.lock_lines)


def test_versions_of_the_last_install_are_preferred_and_change_no_fingerprint() -> None:
    files = {"main.go": b'package main\n\nimport "github.com/gin-gonic/gin"\n\nfunc main() { gin.Default() }\n'}
    plans = [
        plan(files, list(files), Target(), Context(toolchain=TOOLCHAIN, previous_locks=locks))
        for locks in ({}, {"go": LOCK}, {"go": b"-- go.mod --\nnonsense\n"})
    ]
    staged = [{file.path: file.content for file in item.staged} for item in plans]
    assert b"require github.com/gin-gonic/gin v1.10.0\n" in staged[1]["go.mod"]
    assert SUM.strip() in staged[1]["go.sum"]
    assert staged[0] == staged[2]
    assert len({item.fingerprint for item in plans}) == 1


def test_go_sum_alone_pins_the_newest_version_of_each() -> None:
    content = (
        f"a.b/c v1.9.0 {HASH}\na.b/c v1.10.0-rc.1 {HASH}\na.b/c v1.10.0 {OTHER_HASH}\na.b/d v1.0.0/go.mod {HASH}\n"
    )
    packages = compared_packages(content.encode(), "go.sum")
    assert [(item.name, item.version, item.hashes) for item in packages] == [("a.b/c", "v1.10.0", (OTHER_HASH,))]


def test_order_of_versions() -> None:
    ordered = ["v0.0.0-20200101000000-abcdefabcdef", "v0.1.0", "v1.0.0-alpha", "v1.0.0-alpha.1", "v1.0.0-beta",
               "v1.0.0", "v1.9.0", "v1.10.0", "v2.0.0+incompatible"]  # fmt: skip
    assert sorted([*ordered[5:], *ordered[:5]], key=precedence) == ordered


def test_replaced_modules_count_in_the_place_of_their_originals() -> None:
    mod = MOD + b"replace (\n\tgithub.com/gin-gonic/gin => github.com/fork/gin v1.11.0\n"
    mod += b"\tgithub.com/BurntSushi/toml v1.4.0 => ./toml\n)\n"
    sums = SUM + f"github.com/fork/gin v1.11.0 {OTHER_HASH}\n".encode()
    assert [(item.path, item.hash) for item in read_lock(bundled(mod, sums))] == [("github.com/fork/gin", OTHER_HASH)]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("go.sum", b"", True),
        ("some/go.mod", b"", True),
        ("lock", LOCK, True),
        ("lock", SUM, True),
        ("lock", b"// comment\nmodule x\n", True),
        ("lock", b'{"packages": {}}', False),
        ("lock", b"requests==2.0\n", False),
    ],
)
def test_native_locks_are_recognised(name: str, content: bytes, *, expected: bool) -> None:
    assert is_lock(Lockfile(name=name, content=content)) is expected


def test_any_lock_of_go_can_be_compared() -> None:
    ecosystem, packages = read_any_lock(Lockfile(name="old", content=LOCK), TOOLCHAIN)
    assert (ecosystem, [item.version for item in packages]) == ("go", ["v1.4.0", "v1.10.0"])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"-- go.mod --\nmodule x\nrequire a.b/c latest\n", 3),
        (b"-- go.mod --\nmodule x\n-- go.sum --\na.b/c v1.0.0 h1:x\n", 4),
        (b"-- go.mod --\nmodule x\n-- go.mod --\nmodule x\n", 3),
    ],
)
def test_a_lock_that_cannot_be_read_names_its_line(content: bytes, line: int) -> None:
    with pytest.raises(LockError) as caught:
        read_lock(content)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"[" * 100_000, ""),
        (b"\xff", ""),
        (b'{"format": 2}', "format"),
        (inventory({**GIN, "path": "../x"}), "modules[0].path"),
        (inventory({**GIN, "version": "latest"}), "modules[0].version"),
        (inventory({**GIN, "hash": "md5:1"}), "modules[0].hash"),
        (inventory(GIN, GIN), "modules[1].path"),
        (inventory({**GIN, "licenses": [{"name": "x", "text": "\ud800"}]}), "modules[0].licenses[0].text"),
        (inventory(GIN, edges=[["a"]]), "graph[0]"),
    ],
)
def test_an_inventory_of_a_stranger_is_read_strictly(raw: bytes, path: str) -> None:
    with pytest.raises(InventoryError) as caught:
        unmanaged_packages(raw)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("found", "expression", "raw"),
    [
        ([("LICENSE", MIT)], "MIT", ""),
        ([("LICENSE", APACHE)], "Apache-2.0", ""),
        ([("LICENSE", BSD)], "BSD-2-Clause", ""),
        ([("LICENSE", BSD_3)], "BSD-3-Clause", ""),
        ([("LICENSE", f"Covered by two licenses.\n{MIT}\n{APACHE}")], "Apache-2.0 AND MIT", ""),
        ([("LICENSE-APACHE", APACHE), ("LICENSE-MIT", MIT)], "Apache-2.0 OR MIT", ""),
        ([("LICENSE", MIT), ("LICENSE.third-party", APACHE)], "Apache-2.0 AND MIT", ""),
        ([("LICENSE", "Mozilla Public License Version 2.0 GNU General Public License, Version 2.0")], "MPL-2.0", ""),
        ([("COPYING", "GNU GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007 ... GNU Lesser General Public License")],
         "GPL-3.0-only", ""),
        ([("COPYING", "GNU LESSER GENERAL PUBLIC LICENSE\n Version 2.1, February 1999")], "LGPL-2.1-only", ""),
        ([("LICENSE", f"{MIT} ... The Software shall be used for Good, not Evil.")], "NOASSERTION", "MIT License"),
        ([("LICENSE", "\n\nAll rights reserved.\nAsk us.")], "NOASSERTION", "All rights reserved."),
        ([], "NOASSERTION", ""),
    ],
)  # fmt: skip
def test_licences(found: list[tuple[str, str]], expression: str, raw: str) -> None:
    assert license_of([LicenseFile(name=name, text=text) for name, text in found]) == (expression, raw)


FAILURES = [
    (
        "github.com/no/where: module github.com/no/where: reading http://x/github.com/no/where/@v/list: 404 Not Found",
        "not_found",
        ("github.com/no/where",),
    ),
    (
        "module github.com/no/where: reading http://x/y: 502 Bad Gateway\n\tQila: The registry answered 403.",
        "not_found",
        ("github.com/no/where",),
    ),
    (
        "github.com/gin-gonic/gin/nope: module found (v1), but does not contain package github.com/gin-gonic/gin/nope",
        "no_solution",
        ("github.com/gin-gonic/gin",),
    ),
    (
        "go: github.com/a/b@v9.0.0: reading http://127.0.0.1:7480/go/github.com/a/b/@v/v9.0.0.mod: 410 Gone",
        "not_found",
        ("github.com/a/b",),
    ),
    ('go.mod:4: require github.com/a/b: version "v9.9.9" invalid: should be v0 or v1, not v9', "no_solution", ()),
    (
        "verifying github.com/a/b@v1.6.0: checksum mismatch\n\tdownloaded: h1:x\n\tgo.sum: h1:y\n\nSECURITY ERROR",
        "no_solution",
        ("github.com/a/b",),
    ),
    (
        "go: github.com/a/b@v1.0.0 requires go >= 1.99 (running go 1.27.3; GOTOOLCHAIN=local)",
        "no_solution",
        ("github.com/a/b",),
    ),
    ("go: writing go.mod cache: mkdir /sandbox/x: no space left on device", "out_of_space", ()),
    (
        'go: github.com/a/b@v1.0.0: Get "http://127.0.0.1:7480/go/x": dial tcp: connect: connection refused',
        "network_denied",
        ("github.com/a/b",),
    ),
    (
        "go: github.com/a/b@v1.0.0: reading http://x/@v/v1.0.0.mod: 403 Forbidden\n\tanswer: refused by policy",
        "policy_denied",
        ("github.com/a/b",),
    ),
    ("lock: github.com/a/b v1.0.0: the other modules of the lock need v1.1.0", "no_solution", ("github.com/a/b",)),
]


@pytest.mark.parametrize(("words", "reason", "packages"), FAILURES)
def test_failures_are_typed(words: str, reason: str, packages: tuple[str, ...]) -> None:
    output = f"go: downloading github.com/z/z v1.0.0\n{words}\n".encode()
    failure = explain_failure(StepKind.SOLVE, 1, output)
    assert (failure.reason.value, failure.packages) == (reason, packages)
    assert "downloading" not in failure.detail


def test_a_failure_is_cut_and_has_hints() -> None:
    assert explain_failure(StepKind.SOLVE, 124, b"").reason.value == "timed_out"
    assert "newer Go" in explain_failure(StepKind.SOLVE, 1, b"go: a.b/c@v1.0.0 requires go >= 1.99").hints[0]
    assert len(explain_failure(StepKind.SOLVE, 1, b"x" * 10**6).detail.encode()) <= 8 * 1024


def test_progress() -> None:
    lines = {
        b"go: downloading github.com/a/b v1.0.0": PackageEvent(
            action="downloading", name="github.com/a/b", version="v1.0.0"
        ),
        b"+ github.com/a/b v1.0.0+incompatible": PackageEvent(
            action="installed", name="github.com/a/b", version="v1.0.0+incompatible"
        ),
        b"go: finding module for package a.b/c": StageProgress(stage=InstallStage.RESOLVING),
        b"Installing 12 modules": StageProgress(stage=InstallStage.INSTALLING, total=12),
        b"go: found a.b/c in a.b/c v1.0.0": None,
        b"+" * 5000: None,
    }
    assert {line: parse_installer_line(StepKind.INSTALL, line) for line in lines} == lines


def test_imports_that_a_build_does_not_find() -> None:
    output = b"""cmd/x/main.go:5:2: no required module provides package github.com/spf13/cobra; to add it:
\tgo get github.com/spf13/cobra
./main.go:6:2: package gin is not in std (/usr/lib/qila/go/src/gin)
main.go:7:2: no required module provides package github.com/aws/aws-sdk-go-v2/service/s3/types; to add it:
"""
    found = {item.module: item for item in explain_run(output, ["api/go.mod", "api/go.sum"])}
    cobra = found["github.com/spf13/cobra"]
    assert (cobra.path, cobra.line, cobra.suggestion) == ("cmd/x/main.go", 5, "github.com/spf13/cobra@latest")
    assert (cobra.manifest, cobra.declaration) == ("api/go.mod", "require github.com/spf13/cobra latest")
    assert (found["gin"].path, found["gin"].suggestion) == ("main.go", "")
    assert found["gin"].note == "probably github.com/gin-gonic/gin is meant"
    assert found["github.com/aws/aws-sdk-go-v2/service/s3/types"].package == "github.com/aws/aws-sdk-go-v2/service/s3"
    assert explain_run(b"panic: no such thing\nexit status 2\n", []) == []


def test_modules_of_import_paths() -> None:
    guesses = {
        "github.com/a/b/c": "github.com/a/b",
        "github.com/a/b/v2/c": "github.com/a/b/v2",
        "gopkg.in/yaml.v3": "gopkg.in/yaml.v3",
        "gopkg.in/natefinch/lumberjack.v2": "gopkg.in/natefinch/lumberjack.v2",
        "golang.org/x/crypto/bcrypt": "golang.org/x/crypto",
        "modernc.org/sqlite/lib": "modernc.org/sqlite",
        "vanity.example/x/y": "vanity.example/x/y",
    }
    assert {path: module_guess(path) for path in guesses} == guesses
    assert purl_of("a.b/c/v2", "v2.0.0+incompatible") == "pkg:golang/a.b/c/v2@v2.0.0%2Bincompatible"


def test_a_plan_has_all_that_an_install_needs() -> None:
    files = {
        "main.go": b'package main\n\nimport "github.com/google/uuid"\n\nfunc main() { println(uuid.NewString()) }\n'
    }
    planned = plan(files, list(files), Target(), Context(toolchain=TOOLCHAIN))
    assert planned.environment == f"/sandbox/.qila/env/go/{planned.fingerprint}"
    assert all(planned.environment in step.argv for step in planned.steps)
    assert planned.native_lock == planned.steps[-1].argv[-1] == "go.txtar"
    assert planned.launch.env["QILA_GO_ENV"] == planned.environment
    assert f"-overlay={planned.environment}/overlay.json" in planned.launch.env["GOFLAGS"]
    assert planned.inventory_argv[-1] == planned.environment


def test_all_that_decides_an_install_is_in_the_fingerprint() -> None:
    uses = b'package main\n\nimport "github.com/google/uuid"\n\nfunc main() { println(uuid.NewString()) }\n'
    mod = b"module x\n\ngo 1.22\n\nrequire github.com/google/uuid v1.6.0\n"
    trees = [
        {"main.go": uses},
        {"main.go": uses.replace(b"google/uuid", b"gofrs/uuid")},
        {"main.go": uses, "go.mod": mod},
        {"main.go": uses, "go.mod": mod.replace(b"1.6", b"1.5")},
        {"main.go": uses, "go.mod": mod, "go.sum": f"github.com/google/uuid v1.6.0/go.mod {HASH}\n".encode()},
    ]
    prints = [plan(tree, list(tree), Target(), Context(toolchain=TOOLCHAIN)).fingerprint for tree in trees]
    prints.append(plan(trees[0], list(trees[0]), Target(), Context(toolchain={"go": "1.27.4"})).fingerprint)
    assert len(set(prints)) == len(prints)
    changed = {"main.go": uses.replace(b"println", b"print"), "README.md": b""}
    assert plan(changed, list(changed), Target(), Context(toolchain=TOOLCHAIN)).fingerprint == prints[0]


def test_hostile_sources_are_only_errors() -> None:
    for content in (
        b"\x00" * 1000,
        b"(" * 50_000,
        b"package main\nimport (" + b'"a"\n' * 10_000,
        b'import "' + b"x" * 10**6,
    ):
        files = {"main.go": content}
        try:
            plan(files, ["main.go"], Target(program="main.go"), Context(toolchain=TOOLCHAIN))
        except ResolverError as error:
            pytest.fail(str(error))
