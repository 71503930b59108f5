"""What is on disk of a sandbox: one record, written before anybody is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from services.executor.egress.policy import CLOSED, DEFAULT, EgressPolicy, InvalidPolicy
from services.executor.ids import is_sandbox_id
from services.executor.images import DEFAULT_NAME
from services.executor.profile import Limits

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class SandboxRecord:
    """What the executor keeps of a sandbox; a container without a record is nobody's. Time in ISO 8601.

    `image` is the reference that its first container was made from, `image_name` the operator's name for it.
    `egress` is the policy that was asked for; what is in force is narrowed to what the operator allows.
    """

    id: str
    image: str
    limits: Limits
    create_time: str
    egress: EgressPolicy = DEFAULT
    image_name: str = DEFAULT_NAME


def write_record(directory: Path, record: SandboxRecord) -> None:
    """Makes or replaces the record, atomically."""
    directory.mkdir(parents=True, mode=0o700, exist_ok=True)
    temporary = directory / "sandbox.tmp"
    row = {**asdict(record), "egress": record.egress.to_message()}
    temporary.write_text(json.dumps(row, sort_keys=True), encoding="utf-8")
    temporary.rename(directory / "sandbox.json")


def read_record(directory: Path) -> SandboxRecord | None:
    """None if the executor died before the record was whole: then nobody was told the id."""
    try:
        row: Mapping[str, Any] = json.loads((directory / "sandbox.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    assert is_sandbox_id(row["id"])
    return SandboxRecord(**{**row, "limits": Limits(**row["limits"]), "egress": _read_egress(row)})


def _read_egress(row: Mapping[str, Any]) -> EgressPolicy:
    """Records of earlier versions have none. One that cannot be read closes."""
    if "egress" not in row:
        return DEFAULT
    try:
        return EgressPolicy.from_message(row["egress"])
    except InvalidPolicy as error:
        log.warning("the doors of a sandbox stay closed: its record is bad", sandbox_id=row["id"], error=str(error))
        return CLOSED
