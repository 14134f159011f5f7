"""The client's address: as the nearest trusted proxy saw it, never as the client says."""

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
    return peer_address(env)


@functools.lru_cache(maxsize=10_000)
def _normal(text: str) -> str | None:
    """Return the one spelling of an address; None for anything else."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
