"""What the mirror gives and costs."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figures import Figure, compare, figure, milliseconds
from bench.stack import Stack
from qila.gateway.v1 import gateway_pb2 as pb
from services.executor.egress.registries import load_registries

INSTALL_RUNS = 3
DOWNLOAD_RUNS = 5
PACKAGES = ("numpy", "pandas")
# A wheel of some 60 MB, so that the download and not the look-up is what is measured.
PROJECT = "opencv-python-headless"
JSON_TYPE = "application/vnd.pypi.simple.v1+json"
DOWNLOAD = f"""
import json, urllib.request
request = urllib.request.Request("http://127.0.0.1:7480/pypi/simple/{PROJECT}/", headers={{"Accept": "{JSON_TYPE}"}})
files = json.load(urllib.request.urlopen(request))["files"]
path = next(file["url"] for file in files if file["filename"] == FILENAME)
size = 0
with urllib.request.urlopen("http://127.0.0.1:7480" + path) as response:
    while chunk := response.read(1 << 20):
        size += len(chunk)
assert size == SIZE, size
"""


def warm_install(stack: Stack) -> Figure:
    """numpy and pandas in a fresh sandbox, from the mirror's cache; against pip on this machine, from its own cache.

    Ours is a whole exec: plan, install, lock, and the run of a program that does nothing.
    """
    install_here()
    install_there(stack)
    rows = [(install_there(stack), install_here()) for _ in range(INSTALL_RUNS)]
    name = "numpy and pandas into a fresh sandbox, mirror warm"
    label = "`pip install --target` here, cache warm"
    return figure(name, [row[0] for row in rows], [row[1] for row in rows], label)


def install_there(stack: Stack) -> float:
    with fresh_sandbox(stack) as sandbox_id:
        stack.put(sandbox_id, "requirements.txt", "".join(f"{name}\n" for name in PACKAGES).encode())
        stack.put(sandbox_id, "main.py", b"")
        request = pb.ExecRequest(sandbox_id=sandbox_id, program=pb.Program(file="main.py"))
        installed: list[bool] = []
        elapsed = milliseconds(lambda: installed.append(stack.exec(request)[1]))
    if installed != [True]:
        raise SystemExit("nothing was installed")
    return elapsed


def install_here() -> float:
    with tempfile.TemporaryDirectory(prefix="qila-bench-") as target:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", target]
        return milliseconds(lambda: subprocess.run([*pip, *PACKAGES], check=True, timeout=300))


def warm_download(stack: Stack) -> Figure:
    """A large wheel through the mirror's cache, to a program in a sandbox; against the same straight from PyPI."""
    pypi = load_registries().pypi
    context = ssl.create_default_context(cafile=_trust_store())
    page = urllib.request.Request(f"{pypi.url('index')}/simple/{PROJECT}/", headers={"Accept": JSON_TYPE})
    with urllib.request.urlopen(page, context=context) as response:
        wheels = [file for file in json.load(response)["files"] if file["filename"].endswith("x86_64.whl")]
    wheel = wheels[-1]
    program = DOWNLOAD.replace("FILENAME", repr(wheel["filename"])).replace("SIZE", str(wheel["size"]))
    with fresh_sandbox(stack) as sandbox_id:

        def baseline() -> None:
            size = 0
            with urllib.request.urlopen(wheel["url"], context=context) as answer:
                while chunk := answer.read(1 << 20):
                    size += len(chunk)
            if size != wheel["size"]:
                raise SystemExit("the direct download was cut")

        return compare(
            f"{wheel['size'] >> 20} MiB through the mirror's cache",
            lambda: stack.command(sandbox_id, "python3", "-c", program),
            baseline,
            "the same straight from PyPI",
            DOWNLOAD_RUNS,
        )


@contextmanager
def fresh_sandbox(stack: Stack) -> Iterator[str]:
    sandbox_id = stack.create()
    try:
        yield sandbox_id
    finally:
        stack.remove(sandbox_id)


def _trust_store() -> str | None:
    store = Path("/etc/ssl/certs/ca-certificates.crt")
    return str(store) if store.exists() else None
