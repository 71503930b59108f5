"""Package managers in a sandbox whose registries are cut off between two installs, or lie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from doors_harness import Workplace  # type: ignore[import-not-found]  # pytest puts this directory on the path
from pass_through import PassThrough  # type: ignore[import-not-found]  # as above
from sandboxd_harness import Sandbox  # type: ignore[import-not-found]  # as above

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

MODULE = "github.com/mitchellh/go-homedir"
# Each with a cache of its own that nobody has used: what it gets comes from the mirror.
INSTALLS = {
    "pip": "pip install -q --no-cache-dir --target t idna; PYTHONPATH=t python3 -c 'import idna'",
    "uv": "uv pip install -q --no-cache --target t requests; PYTHONPATH=t python3 -c 'import requests'",
    "npm": 'npm install --cache c left-pad debug@4.3.4 >log; node -e \'require("left-pad"); require("debug")\'',
    "go": f"export GOPATH=$PWD/g; go mod init example.test/p 2>log; go mod edit -require={MODULE}@v1.1.0;"
    f" go mod download {MODULE}; grep -q '^{MODULE} v1.1.0 h1:' go.sum; ls g/pkg/mod/{MODULE}@v1.1.0",
}
ASK_FOR_ANOTHER = """
python3 - <<'PROGRAM'
import urllib.error, urllib.request
try:
    urllib.request.urlopen("http://127.0.0.1:7480/pypi/simple/six/")
except urllib.error.HTTPError as error:
    print(error.code)
PROGRAM
"""


@pytest.fixture(scope="module")
def sandbox(sandbox_image: str) -> Iterator[Sandbox]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QILA_TEST_IMAGE", sandbox_image)
        with Sandbox() as made:
            yield made


@pytest.fixture
def registries() -> Iterator[PassThrough]:
    with PassThrough() as made:
        yield made


@pytest.fixture
def place(sandbox: Sandbox, registries: PassThrough, tmp_path: Path) -> Iterator[Workplace]:
    with Workplace(sandbox, registries=registries.write_registries(tmp_path / "registries.toml")) as made:
        yield made


@pytest.mark.parametrize("client", list(INSTALLS))
def test_what_was_installed_once_is_installed_again_without_registries(
    client: str, place: Workplace, registries: PassThrough
) -> None:
    place.run(INSTALLS[client])
    assert place.refused == []
    registries.cut()
    # What the mirror keeps, it keeps on the disk.
    place.restart()
    place.forget()
    place.run(INSTALLS[client])
    assert place.records
    assert place.refused == []
    assert place.run(ASK_FOR_ANOTHER) == "502\n"
    assert place.refused == [("GET", "/pypi/simple/six/", 502, "registry unreachable")]


def test_a_module_that_is_not_what_the_checksum_database_says_is_not_used(
    place: Workplace, registries: PassThrough
) -> None:
    registries.altered[f"/{MODULE}/@v/v1.1.0.mod"] = f"module {MODULE} // and something else\n".encode()
    script = f"export GOPATH=$PWD/g; go mod init example.test/p 2>/dev/null; go get {MODULE}@v1.1.0"
    output = place.run(script, code=1)
    assert "SECURITY ERROR" in output
    assert "added" not in output
