"""Which of several resources a virtual host belongs to, when they name the same one. Pure.

It belongs to the oldest, in every operator and in any order of reconciliation. The others leave it
alone. When the oldest is deleted, the next one gets it.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec

from orderservice_operator.resource.spec import OrderService


class Claim(msgspec.Struct, frozen=True, order=True):
    """A resource that wants to write to a virtual host; the smallest claim counts."""

    created: str  # RFC 3339 in UTC, so that it sorts
    uid: str
    name: str


def claims(service: OrderService) -> bool:
    """Return whether a resource writes to its broker; a paused one keeps its claim."""
    return (
        service.spec.messaging.management_url is not None
        and service.spec.mode == "Manage"
        and service.metadata.deletion_timestamp is None
    )


def claim(service: OrderService) -> Claim:
    """Return a resource's claim."""
    metadata = service.metadata
    full_name = f"{metadata.namespace}/{metadata.name}"
    return Claim(metadata.creation_timestamp, metadata.uid, full_name)


def older(service: OrderService, others: Iterable[OrderService]) -> Claim | None:
    """Return the claim that precedes a resource's own, if any."""
    claimed = claim(service)
    oldest = min((claim(other) for other in others), default=claimed)
    return oldest if oldest < claimed else None


def address_of(url: str) -> str:
    """Return the address as the name of a broker that does not tell its name."""
    address = urlsplit(url)
    return f"{address.hostname}:{address.port or {'http': 80, 'https': 443}[address.scheme]}"
