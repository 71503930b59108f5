"""What the seccomp filter refuses, as the probe tries it; the errors are the filter's own, not the kernel's."""

from __future__ import annotations

from dataclasses import dataclass

CLONE_NEWUSER = 0x10000000


@dataclass(frozen=True, kw_only=True)
class Call:
    """A system call by its numbers; the probe makes it with `first` and then zeros, which does no harm."""

    name: str
    x86_64: int
    aarch64: int
    first: int = 0
    error: str = "EPERM"


@dataclass(frozen=True, kw_only=True)
class Socket:
    """A socket by its family, type and protocol."""

    name: str
    family: int
    kind: int
    protocol: int
    error: str = "EPERM"


CALLS = (
    Call(name="add_key", x86_64=248, aarch64=217),
    Call(name="bpf", x86_64=321, aarch64=280),
    Call(name="clone3", x86_64=435, aarch64=435, error="ENOSYS"),
    Call(name="io_uring_setup", x86_64=425, aarch64=425, error="ENOSYS"),
    Call(name="keyctl", x86_64=250, aarch64=219),
    Call(name="mount", x86_64=165, aarch64=40),
    Call(name="name_to_handle_at", x86_64=303, aarch64=264),
    Call(name="open_by_handle_at", x86_64=304, aarch64=265),
    Call(name="perf_event_open", x86_64=298, aarch64=241),
    Call(name="pivot_root", x86_64=155, aarch64=41),
    Call(name="process_vm_readv", x86_64=310, aarch64=270),
    Call(name="setns", x86_64=308, aarch64=268),
    Call(name="unshare(CLONE_NEWUSER)", x86_64=272, aarch64=97, first=CLONE_NEWUSER),
    Call(name="userfaultfd", x86_64=323, aarch64=282),
)
SOCKETS = (
    Socket(name="socket(AF_ALG)", family=38, kind=5, protocol=0),
    Socket(name="socket(AF_NETLINK, NETLINK_KOBJECT_UEVENT)", family=16, kind=3, protocol=15),
    Socket(name="socket(AF_PACKET)", family=17, kind=3, protocol=0),
    Socket(name="socket(AF_VSOCK)", family=40, kind=1, protocol=0),
    Socket(name="socket(IPPROTO_ICMP)", family=2, kind=2, protocol=1),
    Socket(name="socket(IPPROTO_MPTCP)", family=2, kind=1, protocol=262, error="EPROTONOSUPPORT"),
    Socket(name="socket(IPPROTO_SCTP)", family=2, kind=1, protocol=132),
    Socket(name="socket(SOCK_RAW)", family=2, kind=3, protocol=255),
)
EXPECTED = {row.name: row.error for row in (*CALLS, *SOCKETS)}
