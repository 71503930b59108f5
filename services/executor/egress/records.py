"""What the doors decided: one record a request, and the checks that the executor makes before it believes one."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

Phase = Literal["INSTALL", "RUN"]
Verdict = Literal["allowed", "refused", "failed"]

# The user that a sandbox's install steps run as; it counts only while the executor says that one is running.
INSTALL_UID = 1001

_MAX_TEXT = 2048


class InvalidRecord(Exception):
    """A message that claims to be an egress record and is none."""

    def __init__(self, *, field: str) -> None:
        super().__init__(field)
        self.field = field

    def __str__(self) -> str:
        return f"egress record with a bad field {self.field!r}"


@dataclass(frozen=True, kw_only=True)
class EgressRecord:
    """One decision of the doors.

    `status` is the HTTP status that the client got (0: the connection never came to a request), `bytes` counts the body
    bytes sent to the client, `digest` is the SHA-256 (hex) that an artefact was held against, or another
    one as `sha512:` or `sha1:` and hex, else empty. `method`, `host`, `path` come from untrusted input, cut to 2,048
    characters and free of control characters and surrogates.
    """

    sandbox: str
    phase: Phase
    uid: int
    method: str
    host: str
    path: str
    status: int
    verdict: Verdict
    rule: str
    bytes: int
    digest: str

    def to_message(self) -> dict[str, object]:
        """The control message that carries this record."""
        return {"type": "egress", **dataclasses.asdict(self)}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "EgressRecord":
        """Read a control message strictly.

        Raises:
            InvalidRecord: a field is missing, of the wrong type or out of range.
        """
        for name in ("sandbox", "method", "host", "path", "rule", "digest"):
            value = message.get(name)
            if not isinstance(value, str) or len(value) > _MAX_TEXT or printable(value) != value:
                raise InvalidRecord(field=name)
        for name in ("uid", "status", "bytes"):
            value = message.get(name)
            if type(value) is not int or not 0 <= value < 2**63:
                raise InvalidRecord(field=name)
        for name, allowed in (("phase", get_args(Phase)), ("verdict", get_args(Verdict))):
            if message.get(name) not in allowed:
                raise InvalidRecord(field=name)
        return cls(**{field.name: message[field.name] for field in dataclasses.fields(cls)})


def printable(text: str) -> str:
    """`text` with everything that is not printable escaped, cut to 2,048 characters."""
    head = text[:_MAX_TEXT]
    if head.isprintable():
        return head
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in head)
    return escaped[:_MAX_TEXT]
