"""The head of a CONNECT request: one strict grammar, wide enough for what package clients really send."""

import re
from dataclasses import dataclass

from services.executor.egress.policy import is_host_name
from services.executor.egress.verdicts import Refused

PORT = 443
MAX_HEAD_BYTES = 8 * 1024
END_OF_HEAD = b"\r\n\r\n"

_MAX_FIELDS = 32
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rf"(?P<method>{_NAME}) (?P<target>[!-~]+) HTTP/1\.(?P<minor>[01])")
# Blanks around the value are cut off afterwards: as part of the pattern, many of them would take it hours.
_FIELD = re.compile(rf"(?P<name>{_NAME}):(?P<value>[\t -~]*)")
_TARGET = re.compile(r"(?P<host>[A-Za-z0-9.-]+):(?P<port>[0-9]+)")
# A request that announces a body or another protocol is no tunnel's; what follows it could be read in two ways.
_UNWANTED_FIELDS = {"content-length", "expect", "transfer-encoding", "upgrade"}


@dataclass(frozen=True, kw_only=True)
class RequestHead:
    """A well-formed head. `host` is the value of the Host field, None if there was none; nothing is decided by it."""

    method: str
    target: str
    host: str | None


def parse_head(head: bytes) -> RequestHead:
    """Read a whole head, its empty line included.

    Raises:
        Refused: it is no head of an HTTP/1 request, announces a body, or has two Host fields.
    """
    if len(head) > MAX_HEAD_BYTES or not head.endswith(END_OF_HEAD) or not head.isascii():
        raise _malformed()
    line, *fields = head.removesuffix(END_OF_HEAD).decode("ascii").split("\r\n")
    request = _REQUEST_LINE.fullmatch(line)
    if request is None or len(fields) > _MAX_FIELDS:
        raise _malformed()
    hosts = []
    for text in fields:
        field = _FIELD.fullmatch(text)
        if field is None or field["name"].lower() in _UNWANTED_FIELDS:
            raise _malformed()
        if field["name"].lower() == "host":
            hosts.append(field["value"].strip(" \t"))
    # pip on Python 3.11 speaks HTTP/1.0, where a Host field is no duty.
    if len(hosts) > 1 or (not hosts and request["minor"] == "1"):
        raise _malformed()
    return RequestHead(method=request["method"], target=request["target"], host=hosts[0] if hosts else None)


def requested_host(head: RequestHead) -> str:
    """The host that a tunnel is asked to, in lower case.

    Raises:
        Refused: another method, a target other than a plain name with port 443, or a Host field that names another.
    """
    if head.method != "CONNECT":
        raise Refused(
            status=405,
            rule="connect: method",
            advice="this door takes CONNECT alone; the registries' mirror is at 127.0.0.1:7480.",
            headers={"Allow": "CONNECT"},
        )
    target = _TARGET.fullmatch(head.target)
    if target is None or not is_host_name(target["host"].lower()):
        raise Refused(status=403, rule="connect: host", advice="the target must be an exact host name with port 443.")
    if target["port"] != str(PORT):
        raise Refused(status=403, rule="connect: port", advice="a tunnel leads to port 443 alone.")
    host = target["host"].lower()
    # Maven leaves the port out.
    if head.host is not None and head.host.lower() not in {host, f"{host}:{PORT}"}:
        raise Refused(status=400, rule="connect: host field", advice="the Host field names another host.")
    return host


def _malformed() -> Refused:
    return Refused(status=400, rule="connect: malformed request", advice="this is no CONNECT request.")
