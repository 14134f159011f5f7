"""The client's address: as the nearest trusted proxy saw it, never as the client says.

Of an IPv6 address only the /64 counts: it is what one customer of a provider has, addresses in it
are free.
"""

import functools
import ipaddress
from typing import Any

from orders.api.server.connections import peer_address


def client_address(env: dict[str, Any], trusted_proxies: int) -> str:
    """Return who sent the request, given how many proxies of ours appended to X-Forwarded-For.

    A request that did not come through them counts for its peer.
    """
    forwarded = env.get("HTTP_X_FORWARDED_FOR")
    if trusted_proxies and forwarded:
        hops = forwarded.rsplit(",", trusted_proxies)[-trusted_proxies:]
        address = _normal(hops[0].strip())
        if address is not None:
            return address
    return _normal(peer_address(env)) or ""


@functools.lru_cache(maxsize=10_000)
def _normal(text: str) -> str | None:
    """Return the one spelling of an IPv4 address or of an IPv6 /64; None for anything else."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"
