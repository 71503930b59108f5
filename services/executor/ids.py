"""Ids: minted from the operating system's random source, and checked."""

from __future__ import annotations

import base64
import re
import secrets

SANDBOX_ID = re.compile(r"sb_[a-z2-7]{26}\Z")
PROCESS_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


def mint_sandbox_id() -> str:
    """A new sandbox id: 130 random bits."""
    return "sb_" + random_text(26)


def random_text(length: int) -> str:
    """Characters of [a-z2-7], five random bits each."""
    return base64.b32encode(secrets.token_bytes(length)).decode().lower()[:length]


def is_sandbox_id(text: str) -> bool:
    """Whether the text has a sandbox id's form."""
    return SANDBOX_ID.match(text) is not None


def is_process_id(text: str) -> bool:
    """Whether the text has a process id's form, and names no directory above."""
    return PROCESS_ID.match(text) is not None and text not in {".", ".."}
