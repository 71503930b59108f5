"""An error about a tool's version names the images that would do."""

from __future__ import annotations

import pytest

from services.resolver.calls import MakePlan
from services.resolver.errors import ManifestError
from services.resolver.local import IMAGE_TOOLCHAIN
from services.resolver.model import Context, Target
from services.resolver.plan import plan
from services.resolver.workers import WorkerLimits, WorkerPool

IMAGES = {
    "default": IMAGE_TOOLCHAIN,
    "next": {"python": "3.99.1", "node": "98.2.0", "go": "1.98.3", "java": "98.0.1"},
    "early": {"python": "3.99.0rc1", "node": "98", "go": "1.98rc1", "java": "98-ea"},
    "empty": {},
}
CASES = {
    "requires-python": (
        {"main.py": b"", "pyproject.toml": b'[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.98"\n'},
        "; image 'next' has Python 3.99.1",
    ),
    "poetry": (
        {
            "main.py": b"",
            "pyproject.toml": b'[tool.poetry]\nname = "p"\n[tool.poetry.dependencies]\npython = "^3.98"\n',
        },
        "; image 'next' has Python 3.99.1",
    ),
    "go line": (
        {"main.go": b"package main\nfunc main() {}\n", "go.mod": b"module a\n\ngo 1.98\n"},
        "; image 'next' has Go 1.98.3",
    ),
    "jbang": (
        {"Main.java": b"//JAVA 97\nclass Main { public static void main(String[] a) {} }\n"},
        "; image 'next' has Java 98.0.1",
    ),
    "maven": (
        {
            "Main.java": b"class Main { public static void main(String[] a) {} }",
            "pom.xml": b"""<project><modelVersion>4.0.0</modelVersion><groupId>a</groupId><artifactId>b</artifactId>
            <version>1</version><properties><maven.compiler.release>97</maven.compiler.release></properties></project>""",
        },
        "; image 'next' has Java 98.0.1",
    ),
}


def refusal(files: dict[str, bytes], images: dict[str, dict[str, str]]) -> str:
    context = Context(toolchain=IMAGE_TOOLCHAIN, images=images)
    with pytest.raises(ManifestError) as refused:
        plan(files, files, Target(), context)
    return str(refused.value)


@pytest.mark.parametrize("case", CASES)
def test_the_image_that_would_do_is_named(case: str) -> None:
    files, wanted = CASES[case]
    without = refusal(files, {})
    assert refusal(files, IMAGES) == without + wanted
    assert "image '" not in without


async def test_the_error_leaves_a_worker() -> None:
    files, wanted = CASES["go line"]
    context = Context(toolchain=IMAGE_TOOLCHAIN, images=IMAGES)
    pool = WorkerPool(1, WorkerLimits())
    await pool.start()
    try:
        with pytest.raises(ManifestError) as refused:
            await pool.run(MakePlan(files=files, tree=tuple(files), target=Target(), context=context))
    finally:
        await pool.stop()
    assert (refused.value.line, str(refused.value).endswith(wanted)) == (3, True)


def test_an_image_that_would_not_do_is_not_named() -> None:
    files, _ = CASES["go line"]
    assert "image '" not in refusal(files, {"older": {"go": "1.97.9"}, "other": {"node": "99.0.0"}})


def test_a_node_that_is_asked_for_is_named_in_the_notice() -> None:
    files = {
        "main.js": b"",
        "package.json": b'{"name": "a", "engines": {"node": ">=98.1"}, "dependencies": {"left-pad": "1"}}',
    }
    planned = plan(files, files, Target(), Context(toolchain=IMAGE_TOOLCHAIN, images=IMAGES))
    (notice,) = [notice for notice in planned.notices if notice.subject == "engines"]
    assert notice.detail.endswith("; image 'next' has Node 98.2.0")


def test_images_decide_nothing_and_toolchains_do() -> None:
    files = {"main.py": b"import requests\n", "requirements.txt": b"requests==2.32.3\n"}

    def fingerprint(context: Context) -> str:
        return plan(files, files, Target(), context).fingerprint

    here = fingerprint(Context(toolchain=IMAGE_TOOLCHAIN))
    assert here
    assert fingerprint(Context(toolchain=IMAGE_TOOLCHAIN, images=IMAGES)) == here
    assert fingerprint(Context(toolchain={**IMAGE_TOOLCHAIN, "python": "3.12.4"})) != here
