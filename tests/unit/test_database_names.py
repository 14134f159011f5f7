"""Addresses beside the names of a URL, as libpq takes them."""

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from orders.database.names import Names, hosts_and_ports


def resolved(url: str) -> dict[str, str]:
    return {name: str(value) for name, value in conninfo_to_dict(Names().resolved(url, 5)).items()}


def test_a_name_is_looked_up_and_stays_in_the_url_for_certificates() -> None:
    parameters = resolved("postgresql://u:p@localhost:7/orders")
    assert set(parameters["host"].split(",")) == {"localhost"}
    assert "127.0.0.1" in parameters["hostaddr"].split(",")
    assert set(parameters["port"].split(",")) == {"7"}
    assert (parameters["user"], parameters["password"], parameters["dbname"]) == (
        "u",
        "p",
        "orders",
    )


def test_each_host_keeps_its_port_and_its_place() -> None:
    parameters = resolved("postgresql://127.0.0.1:1,localhost:2,[::1]:3/orders")
    hosts, ports = parameters["host"].split(","), parameters["port"].split(",")
    assert (hosts[0], hosts[-1]) == ("127.0.0.1", "::1")
    assert dict(zip(hosts, ports, strict=True)) == {"127.0.0.1": "1", "localhost": "2", "::1": "3"}
    assert len(parameters["hostaddr"].split(",")) == len(hosts)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://127.0.0.1/orders",
        "postgresql://[fe80::1%25eth0]/orders",
        "postgresql:///orders?host=/run/postgresql",
        "postgresql:///orders",
        "postgresql://nowhere.invalid/orders?hostaddr=127.0.0.1",
    ],
)
def test_what_needs_no_look_up_stays_as_it_is(url: str) -> None:
    assert Names().resolved(url, 0) == url


@pytest.mark.parametrize("host", ["a..b", "x" * 64])  # refused without a look-up
def test_a_host_without_an_address_is_left_out(host: str) -> None:
    assert resolved(f"postgresql://{host}:1,127.0.0.1:2/orders")["port"] == "2"
    with pytest.raises(psycopg.OperationalError, match="no host has an address"):
        Names().resolved(f"postgresql://{host}/orders", 5)


def test_no_port_is_the_usual_one_and_one_port_is_of_all() -> None:
    assert hosts_and_ports({"host": "a,b", "port": "7"}) == [("a", "7"), ("b", "7")]
    assert hosts_and_ports({"host": "a,b", "port": ",7"}) == [("a", "5432"), ("b", "7")]
    assert hosts_and_ports({"host": "a"}) == [("a", "5432")]
