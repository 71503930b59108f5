"""What the resolver knows of Java: locks, inventories, the words of javac and of Maven's resolver, hostile texts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from services.resolver.errors import InstallMismatchError, InventoryError, LockError, ManifestError
from services.resolver.java.catalog import read_catalog
from services.resolver.java.coordinates import Coordinate, parse_coordinate, purl_of
from services.resolver.java.failures import explain_failure
from services.resolver.java.given import exact_lock
from services.resolver.java.gradle import GradleWorkspace
from services.resolver.java.gradle_lexer import parse_script
from services.resolver.java.gradle_versions import plain_version
from services.resolver.java.jbang import read_directives
from services.resolver.java.lock import locked_packages, read_lock, unmanaged_packages, verify_install
from services.resolver.java.locks import install_rows, read_maven_lock
from services.resolver.java.missing import explain_run
from services.resolver.java.pom import interpolate, read_pom
from services.resolver.java.progress import parse_installer_line
from services.resolver.java.scan import outline, scan
from services.resolver.java.table import import_table
from services.resolver.lockfile import is_qila_lock, lock_to_json
from services.resolver.model import (
    Context,
    FailureReason,
    InstallStage,
    Lockfile,
    PackageEvent,
    Plan,
    StageProgress,
    StepKind,
    Target,
)
from services.resolver.plan import plan

ROOT = Path(__file__).resolve().parents[3]
INVENTORY = ROOT / "sandbox/image/java/inventory.py"
CONTEXT = Context(toolchain={"java": "21.0.8", "maven": "3.9.9"})
ONE, TWO = "1" * 64, "2" * 64
GSON = {"group": "com.google.code.gson", "artifact": "gson", "version": "2.10.1"}
APACHE = {"name": "The Apache Software License, Version 2.0", "url": ""}


def entry(file: str, sha256: str = ONE, **fields: Any) -> dict[str, Any]:
    more = {"classifier": "", "extension": "jar", "direct": True, "required_by": []} if file.startswith("lib/") else {}
    return {**GSON, **more, "file": file, "sha256": sha256, **fields}


def lock(*packages: dict[str, Any], poms: tuple[dict[str, Any], ...] = ()) -> bytes:
    return json.dumps({"format": 1, "tool": "maven", "packages": packages, "poms": poms}, indent=1).encode()


def inventory(*files: dict[str, Any]) -> bytes:
    return json.dumps({"format": 1, "ecosystem": "java", "files": files}).encode()


def file(path: str, sha256: str = ONE, **fields: Any) -> dict[str, Any]:
    return {"path": path, "sha256": sha256, **fields}


def planned(files: dict[str, str], **context: Any) -> Plan:
    raw = {path: text.encode() for path, text in files.items()}
    return plan(raw, list(raw), Target(), Context(toolchain=CONTEXT.toolchain, **context))


LOCK = lock(entry("lib/gson-2.10.1.jar"), poms=(entry("pom/gson.pom", TWO),))


def test_exactly_what_is_locked_must_be_installed() -> None:
    verify_install(LOCK, inventory(file("lib/gson-2.10.1.jar"), file("pom/gson.pom", TWO)))
    with pytest.raises(InstallMismatchError) as caught:
        verify_install(LOCK, inventory(file("lib/gson-2.10.1.jar", TWO), file("lib/more.jar")))
    assert caught.value.absent == ("com.google.code.gson:gson:2.10.1",)
    assert caught.value.unexpected == ("lib/more.jar",)
    assert caught.value.damaged == ("com.google.code.gson:gson:2.10.1: lib/gson-2.10.1.jar",)


def test_a_licence_is_that_of_the_pom_or_of_one_above_it() -> None:
    parent = "com.google.code.gson:gson-parent:2.10.1"
    locked = lock(
        entry("lib/gson-2.10.1.jar", required_by=["a:b:1"], direct=False),
        poms=(entry("pom/gson.pom"), entry("pom/parent.pom", artifact="gson-parent")),
    )
    files = (file("pom/gson.pom", parent=parent, licenses=[]), file("pom/parent.pom", licenses=[APACHE]))
    (package,) = locked_packages([], locked, inventory(file("lib/gson-2.10.1.jar"), *files))
    assert package.purl == "pkg:maven/com.google.code.gson/gson@2.10.1"
    assert (package.license, package.hashes, package.direct) == ("Apache-2.0", (f"sha256:{ONE}",), False)
    assert package.required_by == ("pkg:maven/a/b@1",)
    (package,) = locked_packages(["com.google.code.gson:gson:2"], locked, inventory(file("pom/gson.pom")))
    assert (package.license, package.direct) == ("NOASSERTION", True)


def test_several_licences_are_a_choice_and_unknown_words_are_kept() -> None:
    def told(*names: str) -> tuple[str, str]:
        licenses = [{"name": name, "url": ""} for name in names]
        rows = inventory(file("lib/gson-2.10.1.jar"), file("pom/gson.pom", licenses=licenses))
        (package,) = locked_packages([], LOCK, rows)
        return package.license, package.license_text

    assert told("MIT License", "Apache 2") == ("Apache-2.0 OR MIT", "")
    assert told("My own terms", "MIT") == ("NOASSERTION", "My own terms; MIT")
    assert told("Eclipse Public License v2.0") == ("EPL-2.0", "")


def test_a_qila_lock_installs_the_same_files() -> None:
    rows = inventory(file("lib/gson-2.10.1.jar"), file("pom/gson.pom", TWO))
    content = lock_to_json("java", locked_packages([], LOCK, rows), CONTEXT.toolchain)
    again = exact_lock(Lockfile(name="qila.lock.json", content=content))
    assert again is not None
    assert again.packages == read_maven_lock(LOCK).packages
    assert b"lib/gson-2.10.1.jar\t" + ONE.encode() in install_rows(again)


def test_qilas_two_locks_are_told_apart() -> None:
    assert not is_qila_lock(Lockfile(name="maven.lock.json", content=LOCK))
    (package,) = read_lock(Lockfile(name="x", content=LOCK))
    assert package.version == "2.10.1"
    gradle = Lockfile(name="gradle.lockfile", content=b"# comment\na:b:1=runtimeClasspath\nempty=\n")
    assert [(item.purl, item.hashes) for item in read_lock(gradle)] == [("pkg:maven/a/b@1", ())]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ((b'"format": 1', b'"format": 2'), 1),
        ((b"lib/gson-2.10.1.jar", b"lib/../x.jar"), 13),
        ((b'"gson"', b'"a\\tb"'), 13),
        ((b"{", b"{{"), 1),
        ((ONE.encode(), b"12"), 13),
    ],
)
def test_a_broken_lock_is_refused_with_its_line(change: tuple[bytes, bytes], line: int) -> None:
    with pytest.raises(LockError) as caught:
        read_maven_lock(LOCK.replace(*change, 1))
    assert caught.value.line == line


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b"{" * 100_000,
        inventory({"path": "lib/a.jar", "sha256": "x"}),
        inventory(file("lib/a.jar"), file("lib/a.jar")),
        inventory(file("lib/\n.jar")),
        inventory(file("a", licenses=[{"name": 3}])),
    ],
)
def test_a_broken_inventory_is_refused(raw: bytes) -> None:
    with pytest.raises(InventoryError):
        unmanaged_packages(raw)


def test_a_jar_put_there_by_hand_is_named_by_what_it_says() -> None:
    rows = inventory(
        file("gson.jar", group="com.google.code.gson", artifact="gson", version="2.9"), file("x-1.2.jar"), file("y.jar")
    )
    purls = [package.purl for package in unmanaged_packages(rows).packages]
    assert purls == ["pkg:maven/com.google.code.gson/gson@2.9", "pkg:generic/x@1.2", f"pkg:generic/y@{ONE[:12]}"]


def test_the_sandbox_lists_an_environment(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "pom").mkdir()
    (tmp_path / "lib/a.jar").write_bytes(b"x")
    parent = "<parent><groupId>g</groupId><artifactId>p</artifactId><version>1</version></parent>"
    terms = "<licenses><license><name>MIT</name><url>u</url></license></licenses>"
    (tmp_path / "pom/a.pom").write_text(f"<project>{parent}{terms}<build><licenses/></build></project>")
    (tmp_path / "pom/b.pom").write_text('<!DOCTYPE x [<!ENTITY a "b">]><project><artifactId>&a;</artifactId></project>')
    rows = {row["path"]: row for row in listed(str(tmp_path))}
    assert set(rows) == {"lib/a.jar", "pom/a.pom", "pom/b.pom"}
    assert (rows["pom/a.pom"]["parent"], rows["pom/a.pom"]["licenses"]) == ("g:p:1", [{"name": "MIT", "url": "u"}])
    assert "licenses" not in rows["pom/b.pom"]


def test_the_sandbox_lists_jars_that_were_put_there(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.jar", "w") as jar:
        jar.writestr("META-INF/maven/g/a/pom.properties", "groupId=g\nartifactId=a\nversion=1\n")
    (tmp_path / "broken.jar").write_bytes(b"PK\x03\x04")
    (tmp_path / "notes.txt").write_text("no jar")
    rows = listed("--jars", str(tmp_path))
    assert [row["path"] for row in rows] == ["a.jar", "broken.jar"]
    assert (rows[0]["group"], rows[0]["version"], rows[1].get("group")) == ("g", "1", None)


def listed(*arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-I", "-S", str(INVENTORY), *arguments]
    done = subprocess.run(command, capture_output=True, check=True)
    return list(json.loads(done.stdout)["files"])


@pytest.mark.parametrize(
    ("output", "reason", "packages"),
    [
        ("error: not-found: a.b:c:jar:1.0 was not found in http://127.0.0.1:7480/maven/", "not_found", ("a.b:c",)),
        ("error: not-found: HTTP 404: Maven Central has releases only", "not_found", ()),
        ("error: refused: a:b:jar:1\nerror: refused: HTTP 403: refused by policy: deny a:b", "policy_denied", ("a:b",)),
        ("error: refused: HTTP 502: out of reach", "network_denied", ()),
        ("error: other: No space left on device", "out_of_space", ()),
        ("error: hash: a:b:1: lib/b-1.jar has the SHA-256 00, the lock says 11", "no_solution", ("a:b",)),
        ("error: pom: 'dependencies.dependency.version' for a:b:jar is missing.", "no_solution", ("a:b",)),
        ("error: transfer: Read timed out", "timed_out", ()),
    ],
)
def test_why_an_install_failed(output: str, reason: str, packages: tuple[str, ...]) -> None:
    failure = explain_failure(StepKind.SOLVE, 1, f"Downloading x\n{output}\n".encode())
    assert (failure.reason, failure.packages) == (FailureReason(reason), packages)
    assert "error:" not in failure.detail
    assert "Downloading" not in failure.detail


def test_a_missing_version_and_a_snapshot_are_hints() -> None:
    pom = explain_failure(StepKind.SOLVE, 1, b"error: pom: 'dependencies.dependency.version' for a:b:jar is missing.")
    assert pom.hints == ("a:b: give it a <version>, or the BOM that manages it",)
    snapshot = explain_failure(StepKind.SOLVE, 1, b"error: not-found: a:b:jar:1-SNAPSHOT was not found")
    assert snapshot.hints == ("Maven Central has releases only: name one instead of -SNAPSHOT",)


def test_progress_of_an_install() -> None:
    def told(line: bytes) -> PackageEvent | StageProgress | None:
        return parse_installer_line(StepKind.SOLVE, line)

    jar = b"Downloading com/google/code/gson/gson/2.10.1/gson-2.10.1.jar"
    assert told(jar) == PackageEvent(action="downloading", name="com.google.code.gson:gson", version="2.10.1")
    assert told(jar.replace(b".jar", b".pom")) is None
    assert told(b"+ a.b:c:1.0") == PackageEvent(action="installed", name="a.b:c", version="1.0")
    assert told(b"Resolved 3 packages") == StageProgress(stage=InstallStage.RESOLVING, done=3, total=3)


JAVAC = (
    b"src/main/java/demo/Main.java:3: error: package com.google.gson does not exist\n"
    b"import com.google.gson.Gson;\n                      ^\n"
    b"src/main/java/demo/Main.java:7: error: package Gson does not exist\n    Gson.x.y();\n        ^\n"
    b"src/main/java/demo/Main.java:9: error: cannot find symbol\n    Gson x;\n    ^\n2 errors\n"
)


DEPENDENCY = (
    "<dependency><groupId>com.google.code.gson</groupId><artifactId>gson</artifactId>"
    "<version>RELEASE</version></dependency>"
)


@pytest.mark.parametrize(
    ("manifest", "declaration"),
    [
        ("build.gradle", 'implementation("com.google.code.gson:gson:+")'),
        ("Main.java", "//DEPS com.google.code.gson:gson:RELEASE"),
        (
            "pom.xml",
            DEPENDENCY,
        ),
    ],
)
def test_what_javac_did_not_find(manifest: str, declaration: str) -> None:
    (found,) = explain_run(JAVAC, [manifest])
    assert (found.module, found.path, found.line) == ("com.google.gson.Gson", "src/main/java/demo/Main.java", 3)
    assert (found.package, found.declaration) == ("com.google.code.gson:gson", declaration)


def test_what_the_runtime_did_not_find() -> None:
    thrown = (
        b'Exception in thread "main" java.lang.NoClassDefFoundError: org/slf4j/Logger\n\tat demo.A.main(A.java:7)\n'
    )
    (found,) = explain_run(thrown, ["pom.xml"])
    assert (found.module, found.package, found.line) == ("org.slf4j.Logger", "org.slf4j:slf4j-api", 7)
    driver = b"Caused by: java.sql.SQLException: No suitable driver found for jdbc:h2:mem:x\n"
    assert [item.package for item in explain_run(driver, [])] == ["com.h2database:h2"]
    assert explain_run(b'Exception in thread "main" java.lang.ArithmeticException: / by zero\n', []) == []


def test_an_unchanged_program_keeps_its_place_and_a_changed_one_has_another() -> None:
    files = {"Main.java": "class Main { public static void main(String[] a) {} }", "notes.txt": "x"}
    first = planned(files).launch.argv
    assert planned(files | {"notes.txt": "y"}).launch.argv == first
    changed = planned(files | {"Main.java": files["Main.java"] + "\n"}).launch.argv
    assert (changed[1] != first[1], changed[2:]) == (True, first[2:])


def test_the_fingerprint_is_that_of_what_is_solved() -> None:
    source = "import com.google.gson.Gson;\nclass Main { public static void main(String[] a) {} }"
    first = planned({"Main.java": source})
    assert planned({"Main.java": source + "\n// more"}).fingerprint == first.fingerprint
    assert planned({"Main.java": "import org.jsoup.Jsoup;\n" + source}).fingerprint != first.fingerprint
    assert planned({"Main.java": source}, package_policy="p").fingerprint != first.fingerprint


def test_versions_of_the_last_install_are_preferred_where_there_is_a_choice() -> None:
    source = "import com.google.gson.Gson;\nclass Main { public static void main(String[] a) {} }"
    again = planned({"Main.java": source}, previous_locks={"java": LOCK})
    staged = {item.path: item.content for item in again.staged}
    assert staged["previous.tsv"] == b"com.google.code.gson:gson\t2.10.1\n"
    assert again.fingerprint == planned({"Main.java": source}).fingerprint
    broken = planned({"Main.java": source}, previous_locks={"java": b"{"})
    assert "previous.tsv" not in {item.path for item in broken.staged}


def test_a_staged_pom_holds_nothing_that_runs() -> None:
    pom = (
        "<project><groupId>a</groupId><artifactId>b</artifactId><version>1</version><build><plugins><plugin>"
        "<artifactId>evil</artifactId></plugin></plugins></build><repositories><repository><url>https://x.example</url>"
        "</repository></repositories><dependencies><dependency><groupId>g</groupId><artifactId>a</artifactId>"
        "<version>1&lt;!--</version></dependency></dependencies></project>"
    )
    with pytest.raises(ManifestError):
        read_pom("pom.xml", pom.encode())
    files = {
        "pom.xml": pom.replace("&lt;!--", ""),
        "Main.java": "class Main { public static void main(String[] a) {} }",
    }
    staged = {item.path: item.content for item in planned(files).staged}
    assert b"<groupId>g</groupId>" in staged["pom.xml"]
    assert b"evil" not in staged["pom.xml"]
    assert b"example" not in staged["pom.xml"]


def test_properties_that_lead_to_each_other_end() -> None:
    assert interpolate("${a}", {"a": "${b}", "b": "${a}"}) in {"${a}", "${b}"}
    assert len(interpolate("${a}", {"a": "${a}${a}" * 200})) <= 2_000


@pytest.mark.parametrize(
    ("written", "meant"),
    [("1.+", "[1,2)"), ("2.10.+", "[2.10,2.11)"), ("+", "RELEASE"), ("latest.release", "RELEASE"), ("1.2!!", "1.2")],
)
def test_gradles_versions(written: str, meant: str) -> None:
    assert plain_version(written) == meant


def test_coordinates() -> None:
    found = parse_coordinate("a.b:c:1:tests@zip")
    assert found == Coordinate(group="a.b", artifact="c", version="1", classifier="tests", extension="zip")
    assert purl_of(found) == "pkg:maven/a.b/c@1?classifier=tests&type=zip"
    assert found.specifier == "a.b:c:1:tests@zip"
    for text in ("a", "a:b:1:2:3", "a:../b:1", "a:b:$(x)", "a:b:1\n"):
        assert parse_coordinate(text) is None or "\n" in text


@pytest.mark.parametrize(
    "text",
    ["/*" * 200_000, '"' * 300_000, "'''" * 200_000, '"\\' * 200_000, "a.b." * 100_000, "\n" * 500_000, "{(" * 20],
)
def test_no_script_takes_long(text: str) -> None:
    begun = time.monotonic()
    files = {"build.gradle": text.encode(), "gradle.properties": text.encode()}
    with suppress(ManifestError):
        GradleWorkspace(files, 21).read("build.gradle", "", tests=False)
    outline(text.encode())
    scan(text[:100_000].encode())
    read_directives("a.java", text.encode(), 21)
    assert time.monotonic() - begun < 10


def test_blocks_that_are_too_deep_are_refused() -> None:
    with pytest.raises(ManifestError, match="deep"):
        parse_script("build.gradle", b"a {" * 100)


def test_a_broken_catalog_is_refused_with_its_line() -> None:
    with pytest.raises(ManifestError) as caught:
        read_catalog("gradle/libs.versions.toml", b"[libraries]\na = \n")
    assert caught.value.line == 2
    with pytest.raises(ManifestError) as caught:
        read_catalog("gradle/libs.versions.toml", b'[libraries]\nx = "a:b:1"\nbad = { module = "x" }\n')
    assert caught.value.line == 3


def test_the_table_is_sound() -> None:
    table = import_table()
    assert len(table.known) > 300
    for prefix, known in table.known.items():
        for coordinate in (known.coordinate, *known.companions):
            assert parse_coordinate(coordinate.specifier) == coordinate, prefix
        assert not table.is_bundled(prefix), prefix
    assert table.is_bundled("javax.swing.JFrame")
    assert table.is_bundled("java.util.*")
    found = table.find("org.apache.poi.xssf.usermodel.XSSFWorkbook")
    assert found is not None
    assert found.coordinate.name == "org.apache.poi:poi-ooxml"


def test_a_scan_tells_mains_and_imports() -> None:
    found = scan(
        b"package a.b;\nimport static x.Y.z;\nimport q.*;\n"
        b"record P(int x) {}\npublic class Main { static class In {} public static void main(final String... a) {} }\n"
    )
    assert (found.package, found.types, found.mains, found.preview) == ("a.b", ("P", "Main"), ("Main",), False)
    assert [(item.name, item.line, item.static) for item in found.imports] == [("x.Y.z", 2, True), ("q.*", 3, False)]
    assert scan(b"class A { void main() {} }").preview
    assert scan(b"void main() {}").unnamed


def test_an_image_with_a_newer_jdk_takes_newer_programs() -> None:
    files = {"A.java": b"//JAVA 25+\nclass A { void main() {} }"}
    made = plan(files, list(files), Target(), Context(toolchain={"java": "25.0.1", "maven": "3.9.9"}))
    assert made.launch.argv[4] == "--enable-preview --release 25"
    with pytest.raises(ManifestError, match="asks for Java 25, the sandbox has 21"):
        plan(files, list(files), Target(), CONTEXT)


def test_a_command_of_the_clients_finds_the_jars() -> None:
    files = {"A.java": b"import com.google.gson.Gson;\nclass A { public static void main(String[] a) {} }"}
    made = plan(files, list(files), Target(program="A.java", command=("javac", "A.java")), CONTEXT)
    assert made.launch.argv == ("javac", "A.java")
    assert made.launch.env["CLASSPATH"] == f".:{made.environment}/lib/*"
