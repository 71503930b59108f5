"""What the executor gives to a sandbox of whom the host trusts."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

import pytest

from services.executor.trust import host_bundle, read_bundle

if TYPE_CHECKING:
    from tests.e2e.conftest import Installation

pytestmark = pytest.mark.docker


def test_a_program_trusts_every_authority_of_the_host(installation: Installation, sandbox: str) -> None:
    bundle = host_bundle(os.environ)
    if bundle is None:
        pytest.skip("this machine has no bundle of authorities")
    code = "import os; print(open(os.environ['SSL_CERT_FILE']).read())"
    done = installation.qila("exec", sandbox, "--", "python3", "-c", code)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().split() == "".join(map(ssl.DER_cert_to_PEM_cert, read_bundle(bundle))).split()
