"""Which addresses a receiver of webhooks may have."""

import ipaddress

import pytest

from orders.upstream.addresses import AllowedAddresses

PRIVATE = (
    "127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "100.64.0.1", "::1", "fd12::1", "::ffff:10.0.0.1", "::ffff:7f00:1", "64:ff9b::192.168.0.1",
)  # fmt: skip
NEVER = (
    "169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fe80::1", "fe80::1%lo",
    "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254",
    "0.1.2.3", "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1",
    "192.0.0.8", "192.88.99.1", "::", "::127.0.0.1", "::ffff:0:127.0.0.1", "ff02::1", "ff0e::1",
    "fec0::1", "2001:db8::1", "2002:7f00:1::", "2001::1", "64:ff9b:1::1", "5f00::1",
)  # fmt: skip
PUBLIC = ("93.184.216.34", "8.8.8.8", "172.32.0.1", "::ffff:8.8.8.8", "2606:4700::1111",
          "64:ff9b::8.8.8.8")  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert AllowedAddresses().admit(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_allowed_by_name_only(address: str) -> None:
    assert not AllowedAddresses().admit(address)
    assert AllowedAddresses(private=True).admit(address)


@pytest.mark.parametrize("address", NEVER)
def test_metadata_and_special_addresses_are_not_private_ones(address: str) -> None:
    assert not AllowedAddresses().admit(address)
    assert not AllowedAddresses(private=True).admit(address)


def test_a_network_that_is_named_is_allowed_and_no_other() -> None:
    named = [ipaddress.ip_network(text) for text in ("10.1.0.0/16", "169.254.1.0/24", "fd12::/16")]
    addresses = AllowedAddresses(networks=named)
    assert all(map(addresses.admit, ("10.1.2.3", "::ffff:10.1.2.3", "169.254.1.1", "fd12::1")))
    refused_addresses = ("10.2.0.1", "127.0.0.1", "169.254.169.254", "fd13::1", "::1")
    assert not any(map(addresses.admit, refused_addresses))
