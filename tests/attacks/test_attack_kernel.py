"""Getting at the kernel: system calls, families of sockets, capabilities."""

from __future__ import annotations

import pytest

from .boxes import Box, run_python
from .frame import ROOT, attack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

# Prints the name of a call that the kernel carried out, or began to: these errors say that it never looked.
CALL = r"""
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
name, number, *arguments = sys.argv[1:]
buffer = ctypes.create_string_buffer(256)
values = [ctypes.c_void_p(ctypes.addressof(buffer)) if a == 'buffer' else ctypes.c_long(int(a, 0)) for a in arguments]
if os.fork() == 0:
    result = libc.syscall(ctypes.c_long(int(number)), *values)
    code = errno.errorcode.get(ctypes.get_errno(), '') if result < 0 else 'done'
    os._exit({'EPERM': 1, 'ENOSYS': 2, 'EACCES': 1}.get(code, 0))
_, status = os.wait()
# Killed by the filter is held as well.
if status == 0:
    print(name)
elif os.waitstatus_to_exitcode(status) == 2:
    print('the kernel has no', name, file=sys.stderr)
"""

# By name: number on x86-64, arguments that do no harm where they are carried out.
CALLS = {
    "io_uring_setup": (425, 4, "buffer"),
    "io_uring_register": (427, -1, 0, 0, 0),
    "io_uring_enter": (426, -1, 0, 0, 0, 0, 0),
    "userfaultfd": (323, 1),
    "keyctl": (250, 0, -3, 0),
    "add_key": (248, 0, 0, 0, 0, -3),
    "request_key": (249, 0, 0, 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, 0, 0, 0),
    "unshare a user namespace": (272, 0x10000000),
    "unshare a network namespace": (272, 0x40000000),
    "clone into a user namespace": (56, 0x10000000 | 17, 0, 0, 0, 0),
    "setns": (308, -1, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "umount2": (166, 0, 0),
    "open_tree": (428, -100, 0, 0),
    "move_mount": (429, -1, 0, -1, 0, 0),
    "fsopen": (430, 0, 0),
    "pivot_root": (155, 0, 0),
    "chroot": (161, 0),
    "kexec_load": (246, 0, 0, 0, 0xFFFFFFFF),
    "init_module": (175, 0, 0, 0),
    "delete_module": (176, 0, 0),
    "open_by_handle_at": (304, -1, 0, 0),
    "swapon": (167, 0, 0),
    "acct": (163, 1),
    "settimeofday": (164, 1, 1),
    "reboot": (169, 0, 0, 0, 0),
    "iopl": (172, 4),
}


@pytest.mark.parametrize("name", CALLS)
@attack(weakened=ROOT)
def test_call_the_kernel(box: Box, name: str) -> list[str]:
    number, *arguments = CALLS[name]
    outcome = box.run("python3", "-I", "-c", CALL, name, str(number), *map(str, arguments))
    assert (outcome.kind, outcome.code) == ("exited", 0), outcome
    if not box.is_shipped and outcome.err:
        pytest.skip(outcome.err.decode())
    return outcome.lines


SOCKET = r"""
import errno, socket, sys
family = getattr(socket, sys.argv[1])
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW):
    try:
        socket.socket(family, kind).close()
        print(sys.argv[1])
        break
    except OSError as error:
        print(kind, error, file=sys.stderr)
"""


@pytest.mark.parametrize("family", ["AF_PACKET", "AF_VSOCK", "AF_ALG", "AF_BLUETOOTH", "AF_CAN", "AF_TIPC"])
@attack(weakened=ROOT)
def test_open_a_socket_of_another_family(box: Box, family: str) -> list[str]:
    outcome = box.run("python3", "-I", "-c", SOCKET, family)
    assert (outcome.kind, outcome.code) == ("exited", 0), outcome
    if not box.is_shipped and not outcome.out:
        pytest.skip(f"the kernel has no {family}")
    return outcome.lines


# Asks for a new interface of kind `dummy`: RTM_NEWLINK with IFLA_LINKINFO.
NEW_LINK = r"""
import socket, struct
kind = struct.pack('HH', 9, 1) + b'dummy\0\0\0'
body = struct.pack('BxHiII', 0, 0, 0, 1, 1) + struct.pack('HH', 4 + len(kind), 18) + kind
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
    link.send(struct.pack('IHHII', 16 + len(body), 16, 0x605, 1, 0) + body)
    answer = link.recv(4096)
    if struct.unpack_from('i', answer, 16)[0] not in (-1, -13):
        print(struct.unpack_from('i', answer, 16)[0])
"""


@attack(weakened=ROOT)
def test_make_an_interface_by_netlink(box: Box) -> list[str]:
    return run_python(box, NEW_LINK)


CAPABILITIES = r"""
import pathlib
rows = dict(line.split(':', 1) for line in pathlib.Path('/proc/self/status').read_text().splitlines())
for name in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb'):
    if int(rows[name], 16):
        print(name, rows[name].strip())
# SETGID, SETUID and KILL are sandboxd's.
if int(rows['CapBnd'], 16) & ~0xe0:
    print('CapBnd', rows['CapBnd'].strip())
if rows['NoNewPrivs'].strip() != '1' or rows['Seccomp'].strip() != '2':
    print(rows['NoNewPrivs'], rows['Seccomp'])
"""


@pytest.mark.parametrize("user", ["program", "install"])
@attack(weakened=ROOT)
def test_hold_a_capability(box: Box, user: str) -> list[str]:
    return run_python(box, CAPABILITIES, user=user)
