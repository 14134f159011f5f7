"""Which addresses a receiver of webhooks may have.

A person who names a receiver must not reach servers inside our network through it.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any, Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_PRIVATE: Final = _networks(
    "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",
    "::1/128", "fc00::/7",
)  # fmt: skip
# Addresses at which clouds give out a machine's credentials: link-local ones (AWS, Azure, Google
# Cloud and others); Alibaba, Azure's host, Oracle; AWS and Google Cloud over IPv6.
_METADATA: Final = _networks(
    "169.254.0.0/16", "fe80::/10",
    "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",
    "fd00:ec2::254/128", "fd20:ce::254/128",
)  # fmt: skip
# Special addresses in IANA's registries that `is_global` of Python 3.11 takes for public ones.
_SPECIAL: Final = _networks("192.0.0.0/24", "192.88.99.0/24", "2002::/16")
_UNICAST_V6: Final = ipaddress.IPv6Network("2000::/3")  # all that IANA has allocated
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are IPv4


class AddressRefused(Exception):
    """Allow the address, or name another receiver."""


class AllowedAddresses:
    """Public addresses, and further ones that the settings allow."""

    def __init__(
        self,
        *,
        private: bool = False,
        networks: Iterable[Network] = (),
        resolve: Callable[..., Iterable[Any]] = socket.getaddrinfo,
    ) -> None:
        """Allow private and loopback addresses too, or all of some networks.

        `private` allows no address that gives out a machine's credentials; `networks` may.
        """
        self._private, self._networks, self._resolve = private, tuple(networks), resolve

    def look_up(self, host: str, port: int) -> list[str]:
        """Return a host's addresses. Raises AddressRefused if any is not allowed, and OSError."""
        answers = self._resolve(host.strip("[]"), port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        for address in addresses:
            if not self.admit(address):
                raise AddressRefused(
                    f"the receiver's address {address} is not public;"
                    " set ORDERS_NOTIFICATION_ALLOW_PRIVATE to allow it"
                )
        return addresses

    def admit(self, text: str) -> bool:
        """Return whether an address is allowed."""
        address = _plain(ipaddress.ip_address(text))
        if _within(address, self._networks):
            return True
        if _within(address, _METADATA):
            return False
        return _public(address) or (self._private and _within(address, _PRIVATE))


def _plain(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address


def _public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST_V6:
        return False
    return address.is_global and not address.is_multicast and not _within(address, _SPECIAL)


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
