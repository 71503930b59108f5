import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.egress.addresses import ForbiddenAddress, check_addresses
from services.executor.egress.dialling import is_own

DOCUMENTATION = "203.0.113.80"


@pytest.mark.parametrize(
    "address",
    [DOCUMENTATION, "192.0.2.1", "198.51.100.7", "151.101.0.223", "8.8.8.8", "1.1.1.1", "9.255.255.255", "11.0.0.0",
     "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "223.255.255.255",
     "2001:db8::1", "2a04:4e42::223", "2606:4700::1", "3fff::1", "2001:200::1", "2003::1"],
)  # fmt: skip  # a table of one column reads best in rows
def test_addresses_that_a_registry_may_have(address: str) -> None:
    assert check_addresses([address]) == (ipaddress.ip_address(address),)


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.0", "100.100.100.200", "100.127.255.255",
     "127.0.0.1", "127.255.255.255", "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.17.0.1",
     "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255",
     "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
     "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
     "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:10::1", "2001:20::1", "2001:2::1", "2002:7f00:1::",
     "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%1", "fe80::1%eth0", "2001:db8::1%eth0", "fec0::1", "ff02::1",
     "4000::1", "5f00::1", "8000::1",
     "", "localhost", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "8.8.8.8 ", "8.8.8.8\0", "8.8.8.8/32"],
)  # fmt: skip  # as above
def test_addresses_that_nobody_may_reach(address: str) -> None:
    with pytest.raises(ForbiddenAddress) as refused:
        check_addresses([address])
    assert refused.value.address == address
    # One of them among others spoils all, wherever it stands.
    for mixed in ([DOCUMENTATION, address], [address, DOCUMENTATION], [DOCUMENTATION] * 20 + [address]):
        with pytest.raises(ForbiddenAddress):
            check_addresses(mixed)


def test_each_address_once_in_order() -> None:
    assert [str(a) for a in check_addresses(["2001:db8::1", DOCUMENTATION, "2001:DB8::1", DOCUMENTATION])] == [
        "2001:db8::1",
        DOCUMENTATION,
    ]


@given(st.ip_addresses())
def test_fuzz_what_is_accepted_is_no_private_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    try:
        check_addresses([str(address)])
    except ForbiddenAddress:
        return
    documentation = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")
    networks = [ipaddress.ip_network(text) for text in documentation]
    assert address.is_global or any(address.version == n.version and address in n for n in networks)


def test_this_machines_own_addresses_are_told_without_a_packet() -> None:
    assert is_own(ipaddress.ip_address("127.0.0.1"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((DOCUMENTATION, 443))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        assert is_own(ipaddress.ip_address(probe.getsockname()[0]))
    assert not is_own(ipaddress.ip_address(DOCUMENTATION))
