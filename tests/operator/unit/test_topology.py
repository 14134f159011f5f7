"""A resource's topology, and which resource a virtual host belongs to."""

from typing import Any

import msgspec
import pytest

from orderservice_operator.children.topology import desired
from orderservice_operator.rabbitmq import sharing
from orderservice_topology import topology
from orderservice_topology.topology import Tier


def test_a_resource_that_says_nothing_gets_the_services_own_topology(make: Any) -> None:
    """A machine without a cluster gets the very same exchanges, queues, bindings and policies."""
    assert desired(make()) == topology.desired()


def test_a_resource_chooses_limits_and_delays(make: Any) -> None:
    tiers = (Tier("5s", 10), Tier("30s", 60), Tier("5m", 600))
    expected = topology.desired("orders", delivery_limit=10, tiers=tiers, max_length=500_000)
    assert desired(make("full")) == expected


def _at(service: Any, created: str, uid: str, **metadata: Any) -> Any:
    changed = msgspec.structs.replace(
        service.metadata, creation_timestamp=created, uid=uid, **metadata
    )
    return msgspec.structs.replace(service, metadata=changed)


def test_a_virtual_host_belongs_to_the_oldest_whoever_asks(make: Any) -> None:
    service = make("prod")
    old = _at(service, "2026-01-01T00:00:00Z", "z", name="old")
    young = _at(service, "2026-01-01T00:00:01Z", "a", name="young")
    twin = _at(service, "2026-01-01T00:00:00Z", "zz", name="twin")
    assert sharing.older(old, [young, twin]) is None
    for other in (young, twin):
        holder = sharing.older(other, [old, young, twin])
        assert holder is not None
        assert holder.name == "shop/old"
    assert sharing.older(young, []) is None


@pytest.mark.parametrize(
    ("change", "claiming"),
    [
        ({}, True),
        ({"paused": True}, True),
        ({"mode": "Observe"}, False),
        ({"messaging": {"managementUrl": None, "deletionPolicy": "Retain"}}, False),
    ],
)
def test_who_writes_to_a_broker_claims_its_virtual_host(
    make: Any, change: Any, *, claiming: bool
) -> None:
    assert sharing.claims(make("prod", **change)) is claiming


def test_a_resource_that_is_going_claims_nothing(make: Any) -> None:
    going = _at(make("prod"), "", "u", deletion_timestamp="2026-01-01T00:00:00Z")
    assert not sharing.claims(going)


def test_an_address_is_the_same_however_it_is_written() -> None:
    assert sharing.address_of("http://Broker/") == sharing.address_of("http://broker:80")
    assert sharing.address_of("https://broker/api") == "broker:443"
