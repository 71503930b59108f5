"""Gradle builds that have to run: what is asked, what is refused before, what is made of answers and failures."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from services.resolver.errors import ManifestError
from services.resolver.java.failures import explain_failure
from services.resolver.java.gradle_age import order_of
from services.resolver.java.gradle_answer import MAX_BYTES, MAX_ENTRIES, MAX_PROJECTS, read_answer
from services.resolver.java.gradle_question import is_build_file
from services.resolver.java.planner import JavaPlanner
from services.resolver.model import Context, FailureReason, NoticeKind, Options, Plan, Source, StepKind, Target

if TYPE_CHECKING:
    from collections.abc import Mapping

MAIN = b"public class Main { public static void main(String[] args) { System.out.println(1); } }\n"
CONTEXT = Context(toolchain={"java": "21.0.8", "maven": "3.9.9", "gradle": "4.4.1"})
ASKED = "dependencies {\n  implementation what()\n}\n"


def plan(files: Mapping[str, str], context: Context = CONTEXT, program: str = "Main.java") -> Plan:
    contents = {"Main.java": MAIN} | {path: text.encode() for path, text in files.items()}
    return JavaPlanner().plan(contents, list(contents), Target(program=program), context)


def configuration(*texts: str, projects: tuple[str, ...] = (), forced: tuple[str, ...] = ()) -> dict[str, Any]:
    dependencies = []
    for text in texts:
        group, name, version = text.split(":")
        dependencies.append({"group": group, "name": name, "version": version})
    return {"dependencies": dependencies, "projects": list(projects), "forced": list(forced)}


def project(path: str, directory: str = "", **configurations: Any) -> dict[str, Any]:
    return {
        "path": path,
        "directory": directory,
        "mainClass": "",
        "sources": [],
        "testSources": [],
        "configurations": configurations,
    }


def answered(files: Mapping[str, str], *projects: dict[str, Any], program: str = "Main.java") -> Plan:
    asked = plan(files, program=program)
    assert asked.preliminary
    document = json.dumps({"format": 1, "projects": list(projects)}).encode()
    return plan(files, replace(CONTEXT, answers={asked.fingerprint: document}), program)


def read(document: Any) -> object:
    return read_answer(json.dumps(document).encode(), "build.gradle")


def test_question_depends_on_the_build_alone() -> None:
    files = {"build.gradle": ASKED, "gradle.properties": "a = 1\n", "versions.properties": "b = 1\n"}
    key = plan(files).fingerprint
    assert plan({**files, "Other.java": "class Other { }", "src/main/resources/x.properties": "c"}).fingerprint == key
    for changed in ("build.gradle", "gradle.properties", "versions.properties"):
        assert plan({**files, changed: files[changed] + "\n"}).fingerprint != key
    for context in (
        replace(CONTEXT, toolchain={**CONTEXT.toolchain, "gradle": "4.4.2"}),
        replace(CONTEXT, platform="linux/arm64"),
        replace(CONTEXT, package_policy="p"),
    ):
        assert plan(files, context).fingerprint != key


def test_gradle_sees_copies_of_the_builds_files_and_nothing_else() -> None:
    files = {
        "service/settings.gradle": "include 'api'",
        "service/build.gradle": ASKED,
        "service/api/build.gradle": "",
        "service/buildSrc/src/main/groovy/Logic.groovy": "class Logic { }",
        "service/src/main/resources/secret.properties": "x",
        "build.gradle": "",
        "service/Main.java": MAIN.decode(),
    }
    asked = plan(files, program="service/Main.java")
    assert {file.path for file in asked.staged} == {
        "declared.gradle",
        "program/settings.gradle",
        "program/build.gradle",
        "program/api/build.gradle",
        "program/buildSrc/src/main/groovy/Logic.groovy",
    }
    assert [step.kind for step in asked.steps] == [StepKind.SOLVE]
    assert not asked.environment
    assert not asked.links
    assert not asked.requirements


def test_texts_between_slashes_and_scripts_that_cannot_be_read_stand_in_nobodys_way() -> None:
    text = """def name = 'x' =~ /[{"']+/\ndef half = 4 / 2\ndef all = [/}/, ~/\\/{/]\n"""
    assert plan({"build.gradle": text + "dependencies { implementation 'a:b:1' }\n"}).requirements[0].name == "a:b"
    assert plan({"build.gradle": text + ASKED, "gradle/other.gradle": "}"}).preliminary


def test_build_of_too_many_bytes_is_refused() -> None:
    files = {"build.gradle": ASKED} | {f"gradle/g{number}.gradle": "// " + "x" * 2**20 for number in range(2)}
    with pytest.raises(ManifestError, match="more than 2000 files, or 2097152 bytes"):
        plan(files)


def test_build_without_settings_is_not_looked_for_above() -> None:
    staged = {file.path: file.content for file in plan({"build.gradle": ASKED}).staged}
    assert staged["program/settings.gradle"] == b"\n"


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("gradle/shared.gradle", True),
        ("versions.properties", True),
        ("app/gradle.properties", True),
        ("src/main/resources/application.properties", False),
        ("app/src/test/resources/x.properties", False),
        ("buildSrc/src/main/java/Logic.java", True),
        ("buildSrc/README.md", False),
        (".gradle/buildOutputCleanup/cache.properties", False),
        ("settings.gradle/x.gradle", False),
        ("app/build/resources/main/x.properties", False),
        ("build/shared.gradle", True),
        ("a/" * 600 + "x.properties", False),
        ("Main.java", False),
    ],
)
def test_files_that_a_build_is_made_of(path: str, *, read: bool) -> None:
    assert is_build_file(path) is read


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("test { useJUnitPlatform() }\n", "'useJUnitPlatform' in build.gradle:1 needs 4.6"),
        ("application { mainClass = 'Main' }\n", "'application' in build.gradle:1 needs 4.10"),
        ("application.mainClass = 'Main'\n", "'application.mainClass' in build.gradle:1 needs 6.4"),
        ("java {\n  toolchain {\n    languageVersion = of(21)\n  }\n}\n", "build.gradle:2 needs 6.7"),
        ("sourceCompatibility = JavaVersion.VERSION_21\n", "'JavaVersion.VERSION_21' in build.gradle:1 needs 8.5"),
        ("tasks.register('x') { }\n", "'tasks.register' in build.gradle:1 needs 4.9"),
    ],
)
def test_what_a_newer_gradle_is_needed_for_is_refused_before_anything_runs(text: str, words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        plan({"build.gradle": text + ASKED})
    assert caught.value.line == text.count("\n") + 2
    assert words in str(caught.value)
    assert "pom.xml" in str(caught.value)


def test_words_of_a_newer_gradle_do_not_matter_where_they_are_no_such_words() -> None:
    text = "ext.platform = 'java'\next.named = '''tasks.register'''\n// useJUnitPlatform()\napply plugin: 'java'\n"
    assert plan({"build.gradle": text + ASKED}).preliminary


@pytest.mark.parametrize(
    ("older", "newer"), [("4.4.1", "4.6"), ("4.9", "4.10"), ("8.5", "8.10.2"), ("4.4", "4.4.1"), ("", "1.0")]
)
def test_versions_are_compared_by_their_numbers(older: str, newer: str) -> None:
    assert order_of(older) < order_of(newer)


def test_operator_who_has_no_code_run_has_no_gradle_run() -> None:
    with pytest.raises(ManifestError, match="no code run by installs"):
        plan({"build.gradle": ASKED}, replace(CONTEXT, options=Options(scripts=False)))


def test_scopes_come_from_class_paths() -> None:
    found = answered(
        {"build.gradle": ASKED},
        project(
            ":",
            compileClasspath=configuration("a:both:1", "a:compile:1"),
            runtimeClasspath=configuration("a:both:1", "a:run:1"),
            annotationProcessor=configuration("a:processor:1"),
            testCompileClasspath=configuration("a:both:1", "a:test:1"),
        ),
    )
    notes = {item.name: item.origins[0].note for item in found.requirements}
    assert notes == {"a:both": "", "a:compile": "provided", "a:run": "runtime", "a:processor": "provided"}
    assert found.source is Source.MANIFEST
    assert (found.notices[0].path, found.notices[0].line) == ("build.gradle", 2)


def test_needed_projects_bring_what_they_declare_but_not_their_tests() -> None:
    files = {"settings.gradle": "", "build.gradle": ASKED, "app/Main.java": MAIN.decode()}
    found = answered(
        files,
        project(":"),
        project(":app", "app", compileClasspath=configuration(projects=(":core",)), runtimeClasspath=configuration()),
        project(
            ":core",
            "core",
            runtimeClasspath=configuration("a:core:1", projects=(":app",)),
            testRuntimeClasspath=configuration("a:test:1"),
        ),
        program="app/Main.java",
    )
    assert [item.specifier for item in found.requirements] == ["a:core:1"]


def test_project_that_is_not_needed_is_left_to_a_plan_of_its_own() -> None:
    names = ("app/build.gradle", "cli/build.gradle", "core/build.gradle", "gradle/shared.gradle", "settings.gradle")
    files = dict.fromkeys(names, "") | {"build.gradle": ASKED, "app/Main.java": MAIN.decode()}
    files["app/build.gradle"] = ASKED
    needs_core = configuration(projects=(":core",))
    found = answered(
        files,
        project(":"),
        project(":app", "app", runtimeClasspath=needs_core),
        project(":cli", "cli"),
        project(":core", "core"),
        program="app/Main.java",
    )
    assert set(found.manifests) == {*files} - {"cli/build.gradle", "app/Main.java"}


def test_project_without_a_script_has_what_the_roots_says_for_it() -> None:
    root = "subprojects {\n  apply plugin: 'java'\n  dependencies { implementation 'a:b:1' }\n}\n"
    files = {"settings.gradle": "include 'app'", "build.gradle": root, "app/src/main/java/Main.java": MAIN.decode()}
    program = "app/src/main/java/Main.java"
    both = configuration("a:b:1")
    found = answered(
        files, project(":"), project(":app", "app", compileClasspath=both, runtimeClasspath=both), program=program
    )
    assert [item.specifier for item in found.requirements] == ["a:b:1"]
    # Where it cannot be asked, what is missing is told.
    told = plan({**files, "build.gradle": f"tasks.register('x')\n{root}"}, program=program)
    assert [(item.kind, item.line) for item in told.notices if item.subject == "dependencies"] == [
        (NoticeKind.MANIFEST_IGNORED, 2)
    ]
    # One with a script of its own is read.
    own = plan({**files, "app/build.gradle": ""}, program=program)
    assert [item.specifier for item in own.requirements] == ["a:b:1"]


def test_forced_versions_win_over_declared_ones_and_those_of_others() -> None:
    found = answered(
        {"build.gradle": ASKED},
        project(
            ":", compileClasspath=configuration("a:b:1", forced=("a:b:2", "c:d:3")), runtimeClasspath=configuration()
        ),
    )
    assert [item.specifier for item in found.requirements] == ["a:b:2"]
    [pom] = [file.content.decode() for file in found.staged if file.path == "pom.xml"]
    managed = pom[: pom.index("</dependencyManagement>")]
    assert "<artifactId>d</artifactId>" in managed
    assert "<version>3</version>" in managed


def test_lockfile_beside_the_build_decides_versions() -> None:
    files = {"build.gradle": ASKED, "gradle.lockfile": "a:b:5=compileClasspath,runtimeClasspath\nempty=\n"}
    both = configuration("a:b:1")
    found = answered(files, project(":", compileClasspath=both, runtimeClasspath=both))
    assert [item.specifier for item in found.requirements] == ["a:b:5"]
    assert found.source is Source.LOCK


def test_answer_that_does_not_hold_the_program_says_so() -> None:
    with pytest.raises(ManifestError, match=r"include it in settings\.gradle"):
        answered(
            {"settings.gradle": "", "build.gradle": "", "x/build.gradle": ASKED, "x/Main.java": MAIN.decode()},
            project(":app", "app"),
            program="x/Main.java",
        )


def test_deep_or_broken_json_is_an_error() -> None:
    for content in (b"[" * 400_000, b"{", b"\xff", b"null", b'{"format": 2}', b'{"format": 1, "projects": {}}'):
        with pytest.raises(ManifestError, match="cannot be used"):
            read_answer(content, "build.gradle")


def test_answers_are_bounded() -> None:
    with pytest.raises(ManifestError, match="above the limit"):
        read_answer(b" " * (MAX_BYTES + 1), "build.gradle")
    with pytest.raises(ManifestError, match="at most"):
        read({"format": 1, "projects": [project(f":p{number}") for number in range(MAX_PROJECTS + 1)]})
    with pytest.raises(ManifestError, match="at most"):
        read({"format": 1, "projects": [project(":", runtimeClasspath=configuration(*["a:b:1"] * (MAX_ENTRIES + 1)))]})


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "app"},
        {"path": ":../x"},
        {"directory": "../x"},
        {"directory": "/etc"},
        {"directory": None},
        {"mainClass": "-javaagent:x.jar"},
        {"sources": "src"},
        {"configurations": []},
        {"configurations": {"runtimeClasspath": []}},
        {"configurations": {"runtimeClasspath": {"dependencies": [7], "projects": [], "forced": []}}},
        {"configurations": {"runtimeClasspath": configuration(forced=("a:b",))}},
        {"configurations": {"runtimeClasspath": configuration("a:../b:1")}},
        {"configurations": {"runtimeClasspath": configuration("a:b:$v")}},
    ],
)
def test_projects_are_held_against_their_grammar(changes: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="cannot be used"):
        read({"format": 1, "projects": [project(":") | changes]})


def test_project_that_is_there_twice_or_not_at_all_is_an_error() -> None:
    with pytest.raises(ManifestError, match="twice"):
        read({"format": 1, "projects": [project(":"), project(":")]})
    with pytest.raises(ManifestError, match="no project ':core'"):
        answered({"build.gradle": ASKED}, project(":", runtimeClasspath=configuration(projects=(":core",))))


STAGE = "/sandbox/.qila/stage/ex_aaaa/program"


@pytest.mark.parametrize(
    ("words", "reason", "detail"),
    [
        (
            (
                f"* Where:\nBuild file '{STAGE}/app/build.gradle' line: 12\n\n* What went wrong:\n"
                "A problem occurred evaluating root project 'program'.\n> Could not find method foo() for arguments []"
            ),
            FailureReason.BUILD_FAILED,
            "app/build.gradle:12: A problem occurred evaluating root project 'program'.\n> Could not find method foo()",
        ),
        (
            f"* Where:\nScript '{STAGE}/gradle/shared.gradle' line: 3\n\n* What went wrong:\nA problem occurred",
            FailureReason.BUILD_FAILED,
            "gradle/shared.gradle:3: A problem occurred",
        ),
        (
            (
                f"* Where:\nBuild file '{STAGE}/build.gradle' line: 2\n\n* What went wrong:\n"
                "Plugin [id: 'a.b', version: '1'] was not found in any of the following sources:"
            ),
            FailureReason.NOT_FOUND,
            "build.gradle:2: Plugin [id: 'a.b'",
        ),
        (
            (
                "* What went wrong:\nA problem occurred configuring root project 'program'.\n"
                "> Could not resolve all files for configuration ':classpath'.\n   > Could not find a:b:1.\n"
            ),
            FailureReason.NOT_FOUND,
            "A problem occurred configuring",
        ),
        (
            (
                "* What went wrong:\nCould not GET 'http://127.0.0.1:7480/maven/a/b/1/b-1.pom'. Received status "
                "code 451 from server: denied by policy"
            ),
            FailureReason.POLICY_DENIED,
            "Could not GET",
        ),
    ],
)
def test_failures_of_gradle_have_their_reason_and_the_builds_own_line(
    words: str, reason: FailureReason, detail: str
) -> None:
    output = f"hello\n\nFAILURE: Build failed with an exception.\n\n{words}\n\n* Try:\nRun with --stacktrace\n"
    failure = explain_failure(StepKind.SOLVE, 1, output.encode())
    assert failure.reason is reason
    assert failure.detail.startswith(detail)
    assert "/sandbox" not in failure.detail
    assert "--stacktrace" not in failure.detail
    assert any("pom.xml" in hint for hint in failure.hints)
