"""Which addresses a name may stand for: everything but what lies on or near this machine, by explicit ranges.

Not `is_global`: where registries are served from inside, their names may stand for documentation addresses.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

# What is special among addresses (the registries of RFC 6890), and what a cloud's machines are told at.
_FORBIDDEN = {
    ip_network(text): meaning
    for text, meaning in {
        "0.0.0.0/8": "this host",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "carrier-grade NAT",
        "127.0.0.0/8": "loopback",
        "168.63.129.16/32": "metadata",
        "169.254.0.0/16": "link-local and metadata",
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "protocol assignments and metadata",
        "192.88.99.0/24": "6to4 relay",
        "192.168.0.0/16": "private",
        "198.18.0.0/15": "benchmarks",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved and broadcast",
        "::/128": "unspecified",
        "::1/128": "loopback",
        "::ffff:0:0/96": "IPv4 in IPv6",
        "64:ff9b::/96": "NAT64",
        "64:ff9b:1::/48": "local NAT64",
        "2001::/23": "Teredo, ORCHID, benchmarks",
        "2002::/16": "6to4",
        "fc00::/7": "unique local",
        "fe80::/10": "link-local",
        "fec0::/10": "site-local",
        "ff00::/8": "multicast",
        # What is left outside 2000::/3 is assigned to nobody on the Internet.
        "::/3": "reserved",
        "4000::/2": "reserved",
        "8000::/1": "reserved",
    }.items()
}


class ForbiddenAddress(Exception):
    """A name stands for an address that no sandbox may reach; `meaning` is the range's."""

    def __init__(self, *, address: str, meaning: str) -> None:
        super().__init__(address, meaning)
        self.address = address
        self.meaning = meaning

    def __str__(self) -> str:
        return f"{self.address} ({self.meaning})"


def check_addresses(texts: Sequence[str]) -> tuple[Address, ...]:
    """The addresses, each once, in their order; one that is forbidden spoils them all.

    Raises:
        ForbiddenAddress: the first that is forbidden or cannot be read.
    """
    return tuple(dict.fromkeys(_check(text) for text in texts))


def _check(text: str) -> Address:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise ForbiddenAddress(address=text, meaning="no address") from error
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ForbiddenAddress(address=text, meaning="an address of one interface")
    for network, meaning in _FORBIDDEN.items():
        if address.version == network.version and address in network:
            raise ForbiddenAddress(address=text, meaning=meaning)
    return address
