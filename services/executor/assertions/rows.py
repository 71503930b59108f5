"""The profile's assertions: what a user of a sandbox must find, row by row, against what it found."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
import resource
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from services.executor.assertions import refused
from services.executor.assertions.report import Mount, Report
from services.executor.profile import Limits, Profile

# Bits of linux/capability.h.
CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8}
NO_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapAmb")
SECCOMP_FILTER = "2"
DEVICES = frozenset({"console", "full", "null", "ptmx", "random", "tty", "urandom", "zero"})
SHOWN_CHARACTERS = 300
# Writable for every user: the sandbox's own, and the kernel counts what lies there.
MESSAGE_QUEUES = "/dev/mqueue"
_SIZE = re.compile(r"(\d+)([kmg]?)\Z")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What a user must find. `masked` are paths without patterns."""

    profile: Profile
    limits: Limits
    user: int
    owns_workspace: bool
    environment: Mapping[str, str]
    masked: tuple[str, ...]
    sandbox_id: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One assertion."""

    name: str
    expected: str
    found: str
    holds: bool


def rows(report: Report, wanted: Expectation) -> Iterator[Row]:
    """Every assertion about one user's report."""
    yield from _identity(report, wanted)
    yield from _rights(report, wanted)
    yield from _calls(report)
    yield from _mounts(report, wanted)
    yield from _paths(report, wanted)
    yield from _limits(report, wanted)
    yield from _control_groups(report, wanted)
    yield from _network(report, wanted)
    yield from _first_process(report)
    surplus = report.environment.items() ^ wanted.environment.items()
    yield _none("environment", "the documented variables", sorted(f"{name}={value}" for name, value in surplus))


def _same(name: str, expected: object, found: object) -> Row:
    return Row(name=name, expected=str(expected), found=_shown(found), holds=expected == found)


def _none(name: str, expected: str, surplus: Iterable[object]) -> Row:
    """Holds if there is nothing of what must not be."""
    found = [str(item) for item in surplus]
    return Row(name=name, expected=expected, found=_shown(", ".join(found)) if found else expected, holds=not found)


def _shown(found: object) -> str:
    """On one line of bounded length, whatever a container made of it."""
    return str(found).encode("unicode_escape").decode()[:SHOWN_CHARACTERS]


def _identity(report: Report, wanted: Expectation) -> Iterator[Row]:
    yield _same("user", [wanted.user] * 3, list(report.user))
    yield _same("group", [wanted.user] * 3, list(report.group))
    yield _same("groups", [wanted.user], list(report.groups))
    yield _same("hostname", wanted.profile.hostname, report.hostname)


def _rights(report: Report, wanted: Expectation) -> Iterator[Row]:
    status = report.status
    for name in NO_CAPABILITIES:
        yield _same(name, "0" * 16, status.get(name))
    allowed = sum(1 << CAPABILITIES[name] for name in wanted.profile.cap_add)
    bounding = status.get("CapBnd", "")
    holds = re.fullmatch("[0-9a-f]{16}", bounding) is not None and int(bounding, 16) & ~allowed == 0
    yield Row(name="CapBnd", expected=f"within {allowed:016x}", found=_shown(bounding), holds=holds)
    yield _same("NoNewPrivs", "1", status.get("NoNewPrivs"))
    yield _same("Seccomp", SECCOMP_FILTER, status.get("Seccomp"))


def _calls(report: Report) -> Iterator[Row]:
    for name, error in refused.EXPECTED.items():
        yield _same(name, error, report.calls.get(name))


def _mounts(report: Report, wanted: Expectation) -> Iterator[Row]:
    profile = wanted.profile
    points = [mount.point for mount in report.mounts]
    needed = {profile.workspace, profile.sockets, *profile.tmpfs, *profile.engine_mounts} - _patterns(profile)
    yield _none("mounts that are missing", "none", sorted(needed - set(points)))
    yield _none("mounts twice", "none", sorted({point for point in points if points.count(point) > 1}))
    yield _none("mounts", "the profile's", sorted(_wrong_mounts(report.mounts, wanted)))
    for path, options in profile.tmpfs.items():
        yield _same(f"space of {path}", _space(options), list(report.space.get(path, ())))


def _patterns(profile: Profile) -> set[str]:
    return {point for point in profile.engine_mounts if "*" in point}


def _space(options: str) -> list[int]:
    """Bytes and inodes of a tmpfs."""
    values = dict(option.split("=") for option in options.split(",") if "=" in option)
    found = _SIZE.match(values["size"])
    assert found is not None, "the profile gives each tmpfs a size"
    return [int(found[1]) * _UNITS[found[2]], int(values["nr_inodes"])]


def _wrong_mounts(mounts: Iterable[Mount], wanted: Expectation) -> Iterator[str]:
    for mount in mounts:
        fault = _fault(mount, wanted)
        if fault:
            yield f"{mount.point} ({mount.kind}) {fault}"


def _fault(mount: Mount, wanted: Expectation) -> str:
    """What is wrong with a mount; empty if nothing is."""
    profile, point = wanted.profile, mount.point
    if point == profile.workspace:
        return _lacking(mount, "rw")
    if point == profile.sockets:
        # Where it begins depends on the host's own mounts.
        own = mount.root.endswith(f"/sb/{wanted.sandbox_id}")
        return _lacking(mount, "ro") if own else f"shows {mount.root} of the host"
    if point in profile.tmpfs:
        plain = ",".join(o for o in profile.tmpfs[point].split(",") if "=" not in o and o != "exec")
        return _lacking(mount, plain) if mount.kind == "tmpfs" else "is no tmpfs"
    if point in wanted.masked:
        return "" if mount.root == "/null" or "ro" in mount.options else "is writable"
    if point in profile.read_only:
        return _lacking(mount, "ro")
    options = [o for pattern, o in profile.engine_mounts.items() if fnmatch.fnmatchcase(point, pattern)]
    return _lacking(mount, options[-1]) if options else "is not in the profile"


def _lacking(mount: Mount, options: str) -> str:
    lacking = [option for option in options.split(",") if option not in mount.options]
    return f"is not {','.join(lacking)}" if lacking else ""


def _paths(report: Report, wanted: Expectation) -> Iterator[Row]:
    profile = wanted.profile
    writable = {*profile.tmpfs, MESSAGE_QUEUES} | ({profile.workspace} if wanted.owns_workspace else set())
    yield _same("mounts that it can write to", sorted(writable), sorted(report.writable))
    shown = {path: report.masked.get(path, "not looked at") for path in wanted.masked}
    wrong = [f"{path} {what}" for path, what in shown.items() if what not in {"absent", "empty"}]
    yield _none("masked paths", "empty", wrong)
    wrong = [path for path in profile.read_only if not report.read_only.get(path)]
    yield _none("read-only paths", "read-only", wrong)
    yield _none("devices", "the harmless ones", sorted(set(report.devices) - DEVICES))


def _limits(report: Report, wanted: Expectation) -> Iterator[Row]:
    profile = wanted.profile
    yield _same("open files (soft, hard)", [profile.nofile] * 2, list(report.nofile))
    yield _same("size of a core dump (soft, hard)", [profile.core] * 2, list(report.core))


def _control_groups(report: Report, wanted: Expectation) -> Iterator[Row]:
    groups, limits = report.control_groups, wanted.limits
    page = resource.getpagesize()
    memory = limits.memory_bytes // page * page
    yield _same("pids", str(limits.pids), groups.get("pids.max") or groups.get("pids/pids.max"))
    if "memory.max" in groups:
        yield _same("memory", str(memory), groups["memory.max"])
        swap, no_swap = groups.get("memory.swap.max"), "0"
        processor = re.fullmatch(r"(\d+) (\d+)", groups.get("cpu.max", ""))
        quota, period = (processor[1], processor[2]) if processor else ("0", "1")
    else:
        yield _same("memory", str(memory), groups.get("memory/memory.limit_in_bytes"))
        swap, no_swap = groups.get("memory/memory.memsw.limit_in_bytes"), str(memory)
        quota, period = groups.get("cpu/cpu.cfs_quota_us", "0"), groups.get("cpu/cpu.cfs_period_us", "1")
    # A machine without swap needs no limit of it, and may not count it.
    expected = no_swap if swap is not None or report.swap_total else None
    yield _same("swap", expected, swap)
    found = int(quota) * 1000 // int(period) if _is_count(quota) and _is_count(period) else None
    yield _same("thousandths of a processor", limits.cpu_millis, found)


def _is_count(text: str) -> bool:
    return re.fullmatch("[1-9][0-9]{0,17}", text) is not None


def _network(report: Report, wanted: Expectation) -> Iterator[Row]:
    yield _same("interfaces", ["lo"], list(report.interfaces))
    yield _same("nameservers", list(wanted.profile.nameservers), list(report.nameservers))
    yield _same("port 53", "EACCES", report.nameserver_port)
    yield _none("addresses of /etc/hosts", "this machine's own", [text for text in report.hosts if not _is_own(text)])


def _is_own(text: str) -> bool:
    """Loopback, or one of the multicast names that every hosts file has."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_loopback or address.is_multicast or text == "fe00::0"


def _first_process(report: Report) -> Iterator[Row]:
    yield _none("the first process", "unreadable", report.first_process)
    yield _same("sandboxd's socket", "EACCES", report.control_socket)
