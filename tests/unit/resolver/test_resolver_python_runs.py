"""What the stderr of failed Python programs tells about imports."""

from __future__ import annotations

import time

import pytest

from services.resolver.model import FailureReason, ImportFinding, StepKind
from services.resolver.plan import explain_run
from services.resolver.python.failures import explain_failure
from services.resolver.python.names import nearest

TRACE = "Traceback (most recent call last):\n"
MAIN = '  File "/sandbox/main.py", line 3, in <module>\n    import yaml\n'
LIBRARY = '  File "/sandbox/.qila/env/python/ab12/lib/pandas/io.py", line 9, in load\n    import_optional()\n'
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "/sandbox/main.py", line 9, in <module>
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/sandbox/main.py", line 3, in work
    |     import yaml
    | ModuleNotFoundError: No module named 'yaml'
    +------------------------------------
"""
NO_YAML = "ModuleNotFoundError: No module named 'yaml'\n"


def missing(stderr: str, *manifests: str) -> ImportFinding | None:
    found = explain_run("python", stderr.encode(), manifests).missing
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    ("stderr", "module", "path", "line", "suggestion"),
    [
        (TRACE + MAIN + NO_YAML, "yaml", "main.py", 3, "pyyaml"),
        ("some log\n" + TRACE + MAIN + LIBRARY + NO_YAML, "yaml", "main.py", 3, "pyyaml"),
        ("\x1b[31m" + TRACE + MAIN + NO_YAML + "\x1b[0m\n", "yaml", "main.py", 3, "pyyaml"),
        ("/usr/bin/python3: No module named pytest\n", "pytest", "", 0, "pytest"),
        (
            "python3: Error while finding module specification for 'yaml.x' (" + NO_YAML.rstrip() + ")\n",
            "yaml",
            "",
            0,
            "pyyaml",
        ),
        (
            TRACE + '  File "/sandbox/a/nb.ipynb, cell 4", line 2, in <module>\n    import cv2\n'
            "ModuleNotFoundError: No module named 'cv2'\n",
            "cv2",
            "a/nb.ipynb",
            2,
            "opencv-python",
        ),
        (
            TRACE + MAIN + NO_YAML + "\nDuring handling of the above exception, another exception occurred:\n\n"
            f"{TRACE}{MAIN}ModuleNotFoundError: No module named 'bs4'\n",
            "bs4",
            "main.py",
            3,
            "beautifulsoup4",
        ),
        (
            TRACE + MAIN + NO_YAML + "\nThe above exception was the direct cause of the following exception:\n\n"
            f"{TRACE}{MAIN}RuntimeError: this program needs yaml\n",
            "yaml",
            "main.py",
            3,
            "pyyaml",
        ),
        (
            GROUP,
            "yaml",
            "main.py",
            3,
            "pyyaml",
        ),
        (
            TRACE + MAIN + LIBRARY + "ImportError: Missing optional dependency 'openpyxl'.  Use pip or conda.\n",
            "openpyxl",
            "main.py",
            3,
            "openpyxl",
        ),
        (
            TRACE + MAIN + LIBRARY + 'RuntimeError: Form data requires "python-multipart" to be installed. \n'
            'You can install "python-multipart" with: \n\npip install python-multipart\n\n',
            "python-multipart",
            "main.py",
            3,
            "python-multipart",
        ),
        (
            TRACE + MAIN + "pkg_resources.DistributionNotFound: The 'PyYAML>=5' distribution was not found and is "
            "required by the application\n",
            "PyYAML",
            "main.py",
            3,
            "PyYAML>=5",
        ),
        (
            TRACE + MAIN + "importlib.metadata.PackageNotFoundError: No package metadata was found for tqdm\n",
            "tqdm",
            "main.py",
            3,
            "tqdm",
        ),
        (
            TRACE + MAIN + NO_YAML + "[2026-01-01 10:00:00 +0000] [7] [ERROR] Shutting down: Master\n",
            "yaml",
            "main.py",
            3,
            "pyyaml",
        ),
    ],
)
def test_import_that_ended_the_program(stderr: str, module: str, path: str, line: int, suggestion: str) -> None:
    found = missing(stderr)
    assert found is not None
    assert (found.module, found.path, found.line, found.suggestion) == (module, path, line, suggestion)


@pytest.mark.parametrize(
    "stderr",
    [
        "",
        "Traceback (most recent call last):",
        "ValueError: bad\n",
        TRACE + MAIN + "ValueError: No module named 'yaml'\n",
        "ERROR:root:yaml is not there\n" + TRACE + MAIN + NO_YAML + "fatal: no configuration\n",
        TRACE + MAIN + NO_YAML + "working without yaml\n" + TRACE + MAIN + "KeyError: 'x'\n",
        TRACE + MAIN + "ImportError: cannot import name 'a' from 'b' (/sandbox/b.py)\n",
        TRACE + MAIN + "ImportError: libGL.so.1: cannot open shared object file: No such file or directory\n",
        "/usr/bin/python3: No module named pkg.__main__; 'pkg' is a package and cannot be directly executed\n",
    ],
)
def test_other_ends_tell_no_import(stderr: str) -> None:
    assert missing(stderr) is None


@pytest.mark.parametrize(
    ("module", "note"),
    [
        ("utils", "utils is a usual name for a file of one's own, which is not there"),
        ("reqeusts", "did you mean requests?"),
        ("yaml.foo", "yaml is there and has no such module; another release may have it"),
        (
            "requests.x'; 'requests' is not a package",
            "requests is a single file, perhaps one's own, that hides a package",
        ),
        ("_tkinter", "it belongs to Python, and the Python of a sandbox does not have it"),
        ("mypkg.utlis", "no package is known to provide it"),
    ],
)
def test_module_that_no_package_is_suggested_for(module: str, note: str) -> None:
    quoted = module if "'" in module else f"{module}'"
    found = missing(f"{TRACE}{MAIN}ModuleNotFoundError: No module named '{quoted}\n")
    assert found is not None
    assert (found.suggestion, found.declaration) == ("", "")
    assert found.note.startswith(note)


@pytest.mark.parametrize(
    ("manifests", "manifest", "declaration"),
    [
        ((), "requirements.txt", "pyyaml"),
        (("app/requirements.txt",), "app/requirements.txt", "pyyaml"),
        (("pyproject.toml",), "pyproject.toml", '"pyyaml",'),
        (("uv.lock", "pyproject.toml"), "pyproject.toml", '"pyyaml",'),
        (("Pipfile.lock",), "Pipfile", 'pyyaml = "*"'),
        (("environment.yml",), "environment.yml", "- pyyaml"),
        (("tool.py",), "tool.py", '#   "pyyaml",'),
    ],
)
def test_line_to_add(manifests: tuple[str, ...], manifest: str, declaration: str) -> None:
    found = missing(TRACE + MAIN + NO_YAML, *manifests)
    assert found is not None
    assert (found.package, found.manifest, found.declaration) == ("pyyaml", manifest, declaration)


def test_hostile_output_takes_no_time() -> None:
    began = time.process_time()
    for text in (
        "|" * 1_000_000,
        TRACE * 30_000,
        (TRACE + "E: x\n") * 20_000,
        "python: No module named " + "a." * 100_000,
    ):
        missing(text)
        missing(TRACE + MAIN + "ImportError: " + text)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("reqeusts", "There is no package 'reqeusts' on PyPI; did you mean 'requests'?"),
        ("cv2", "There is no package 'cv2' on PyPI; did you mean 'opencv-python'?"),
        ("openai-python", "There is no package 'openai-python' on PyPI; did you mean 'openai'?"),
        ("sqlite3", "sqlite3 is a part of Python; remove it from the requirements"),
        ("utils", "There is no package 'utils' on PyPI; a module of this name is usually a file of one's own"),
        (
            "qila-no-such",
            "There is no package 'qila-no-such' on PyPI; check how it is spelt, or whether it exists at all",
        ),
    ],
)
def test_package_that_does_not_exist(name: str, hint: str) -> None:
    output = f"error: No solution found\n  cause: Because {name} was not found in the package registry and you require"
    failure = explain_failure(StepKind.SOLVE, 1, output.encode())
    assert (failure.reason, failure.hints) == (FailureReason.NOT_FOUND, (hint,))


@pytest.mark.parametrize(
    "output",
    [
        "error: No solution found\n  cause: Because all versions of docopt have no usable wheels and you require it",
        "error: Package `docopt` can't be installed because it is marked as `--no-build` but has no wheel",
    ],
)
def test_package_that_would_have_to_be_built(output: str) -> None:
    failure = explain_failure(StepKind.SOLVE, 1, output.encode())
    assert failure.reason is FailureReason.POLICY_DENIED
    assert failure.hints[0].startswith("docopt has no wheel for this Python, and the operator does not allow")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("requests", ""), ("numppy", "numpy"), ("pandsa", "pandas"), ("tor", ""), ("qwertyuiopas", "")],
)
def test_nearest_popular_name(name: str, expected: str) -> None:
    assert nearest(name) == expected
