"""What tests of every kind share."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def sandbox_image() -> str:
    """Name of the sandbox image of this tree, which `make image` has built."""
    shown = subprocess.run(
        [ROOT / "scripts" / "image", "--tag"], check=True, capture_output=True, text=True, timeout=60
    )
    return shown.stdout.strip()
