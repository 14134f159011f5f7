"""RabbitMQ's addresses in the setting."""

import pytest

from orders.errors import SettingError
from orders.messaging.address import addresses, host_and_port
from orders.messaging.link import Hosts
from orders.settings import MessagingSettings


def parsed(url: str) -> list[tuple[str, str, str, str]]:
    return [
        (
            host_and_port(address),
            address.credentials.username,
            address.credentials.password,
            address.virtual_host,
        )
        for address in addresses(MessagingSettings(url=url), "test")
    ]


@pytest.mark.parametrize(
    ("url", "places"),
    [
        ("amqp://u:p@a:1/v", ["a:1"]),
        ("amqp://u:p@a:1,b:2,c/v", ["a:1", "b:2", "c:5672"]),
        ("amqp://u:p@a:1/v,amqp://u:p@b:2/v", ["a:1", "b:2"]),
        ("amqp://u:p@a,b/v,amqp://u:p@c/v", ["a:5672", "b:5672", "c:5672"]),
        ("amqps://u:p@a,b/v", ["a:5671", "b:5671"]),
        ("amqp://u:p@[::1]:1,b/v?heartbeat=5", ["::1:1", "b:5672"]),
    ],
)
def test_hosts_are_given_in_one_url_or_in_several(url: str, places: list[str]) -> None:
    assert parsed(url) == [(each, "u", "p", "v") for each in places]


def test_a_password_may_have_commas() -> None:
    assert parsed("amqp://u:p,q%40@a,b/%2F") == [
        ("a:5672", "u", "p,q@", "/"), ("b:5672", "u", "p,q@", "/"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://u:secret@a/v", "its scheme is http, not one of amqp, amqps"),
        ("redis+cluster://u:secret@a/v", "its scheme is redis+cluster"),
        ("amqp://u:secret@a/v,http://u:secret@b/v", "its scheme is http"),
        ("amqp://u:secret@/v", "a host is empty"),
        ("amqp://u:secret@a,,c/v", "a host is empty"),
        ("amqp://u:secret@a,b,/v", "a host is empty"),
        ("amqp://u:secret@a,:5672/v", "a host is empty"),
        ("amqp:///v", "a host is empty"),
        ("amqp://u:secret@a:0/v", "a port is 0"),
        ("amqp://u:secret@a:99999/v", "cannot be read"),
        ("amqp://u:secret@a:x/v", "cannot be read"),
        ("amqp://u:secret@a/v?heartbeat=soon", "cannot be read"),
        ("amqp://u:secret@a/v?colour=red", "cannot be read"),
    ],
)
def test_what_cannot_be_an_address_is_refused_by_name_without_the_password(
    url: str, reason: str
) -> None:
    with pytest.raises(SettingError) as error:
        parsed(url)
    assert "ORDERS_AMQP_URL is wrong: " in str(error.value)
    assert reason in str(error.value)
    assert "secret" not in str(error.value)


def test_every_host_is_tried_once_before_any_is_tried_again() -> None:
    three = addresses(MessagingSettings(url="amqp://a,b,c/"), "test")
    hosts = Hosts(three)
    rounds = [hosts.next().host for _ in range(6)]
    assert sorted(rounds[:3]) == sorted(rounds[3:]) == ["a", "b", "c"]


def test_after_a_loss_the_others_are_tried_first() -> None:
    hosts = Hosts(addresses(MessagingSettings(url="amqp://a,b,c/"), "test"))
    host = hosts.next().host
    hosts.lost()
    nexts = [hosts.next().host, hosts.next().host]
    assert {host, *nexts} == {"a", "b", "c"}
    assert not hosts.untried


def test_a_single_host_is_not_tried_again_at_once() -> None:
    hosts = Hosts(addresses(MessagingSettings(url="amqp://a/"), "test"))
    hosts.next()
    hosts.lost()
    assert not hosts.untried
    assert hosts.next().host == "a"
