"""The local stack's settings from the environment."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from devstack import services, settings, stack

SECRETS = {
    "postgres": "p", "rabbitmq": "r", "valkey": "v", "cursor": "c" * 32, "webhook": "whsec_x",
}  # fmt: skip


def load(**environ: str) -> settings.Settings:
    return settings.load(environ)


def test_ports_are_those_of_the_documentation_by_default() -> None:
    loaded = load()
    assert loaded.ports["gateway"] == 8080
    assert loaded.ports["postgres"] == 25432
    assert loaded.gateway_url == "http://127.0.0.1:8080"


def test_no_outgoing_connection_can_take_a_port() -> None:
    """Linux gives outgoing connections the ports from 32768 on."""
    assert {name: port for name, port in load().ports.items() if port >= 32_768} == {}


def test_one_offset_moves_every_port_that_is_not_set() -> None:
    ports = load(DEVSTACK_PORT_OFFSET="100", DEVSTACK_API_PORT="9000").ports
    assert ports["gateway"] == 8180
    assert ports["api"] == 9000


def test_no_two_ports_are_the_same() -> None:
    with pytest.raises(settings.SettingError, match=r"DEVSTACK_API_ADMIN_PORT.*GATEWAY.*8080"):
        load(DEVSTACK_API_ADMIN_PORT="8080")


@pytest.mark.parametrize("value", ["eighty", "0", "70000", "8.5"])
def test_a_wrong_port_names_its_variable(value: str) -> None:
    with pytest.raises(settings.SettingError, match="DEVSTACK_GATEWAY_PORT"):
        load(DEVSTACK_GATEWAY_PORT=value)


def test_a_broker_of_ones_own_needs_its_management_address() -> None:
    with pytest.raises(settings.SettingError, match="ORDERS_MANAGEMENT_URL"):
        load(ORDERS_AMQP_URL="amqp://host/")


def test_an_empty_variable_counts_as_unset() -> None:
    assert not load(ORDERS_REDIS_URL="").given("valkey")


def test_the_addresses_of_our_servers_reach_the_services() -> None:
    urls = stack.addresses(load(DEVSTACK_POSTGRES_PORT="1111"), SECRETS)
    assert urls["ORDERS_DATABASE_URL"] == "postgresql://orders:p@127.0.0.1:1111/orders"
    assert urls["ORDERS_DATABASE_REPLICA_URL"].endswith(":25433/orders")
    assert urls["ORDERS_REDIS_URL"] == "redis://orders:v@127.0.0.1:26379/0"
    assert urls["ORDERS_AMQP_URL"] == "amqp://orders:r@127.0.0.1:25672/%2F"
    assert urls["ORDERS_NOTIFICATION_URL"] == "http://127.0.0.1:8093/webhooks"


def test_with_tls_every_address_is_of_a_server_that_is_verified(tmp_path: Path) -> None:
    loaded = load(DEVSTACK_TLS="1", DEVSTACK_STATE=str(tmp_path))
    urls = stack.addresses(loaded, SECRETS)
    authority = tmp_path / "certificates" / "authority.pem"
    verified = f"?sslmode=verify-full&sslrootcert={authority}"
    assert urls["ORDERS_DATABASE_URL"] == f"postgresql://orders:p@127.0.0.1:25432/orders{verified}"
    assert urls["ORDERS_DATABASE_REPLICA_URL"].endswith(f":25433/orders{verified}")
    assert urls["ORDERS_REDIS_URL"] == "rediss://orders:v@127.0.0.1:26379/0"
    assert urls["ORDERS_AMQP_URL"] == "amqps://orders:r@127.0.0.1:25672/%2F"
    assert urls["ORDERS_MANAGEMENT_URL"] == "https://orders:r@127.0.0.1:25673"
    assert urls["ORDERS_INVENTORY_URL"] == "https://127.0.0.1:8091"
    assert urls["ORDERS_PAYMENT_URL"] == "https://127.0.0.1:8092"
    assert urls["ORDERS_NOTIFICATION_URL"] == "https://127.0.0.1:8093/webhooks"
    assert urls["ORDERS_TLS_UNVERIFIED"] == "none"
    assert loaded.gateway_url == "https://127.0.0.1:8080"
    for own in stack.logins(loaded, SECRETS).values():
        addresses = [url for name, url in own.items() if "://" in url and "SECRET" not in name]
        assert all(
            verified in url or url.startswith(("amqps:", "https:", "rediss:")) for url in addresses
        )


@pytest.mark.parametrize(
    ("name", "url", "verified"),
    [
        ("ORDERS_REDIS_URL", "redis://mine", "rediss://mine"),
        ("ORDERS_PAYMENT_URL", "http://mine", "https://mine"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318", "https://127.0.0.1:4318"),
        (
            "ORDERS_DATABASE_URL",
            "postgresql://one/orders?sslmode=require",
            "postgresql://one,two/orders?sslmode=verify-full",
        ),
    ],
)
def test_with_tls_servers_of_ones_own_must_be_verified_too(
    name: str, url: str, verified: str
) -> None:
    with pytest.raises(settings.SettingError, match=f"{name} does not say"):
        load(DEVSTACK_TLS="1", **{name: url})
    assert load(DEVSTACK_TLS="1", **{name: verified}).tls
    assert not load(**{name: url}).tls


def test_each_of_several_replicas_must_be_verified() -> None:
    url = "postgresql://one/orders?sslmode=verify-full"
    environ = {"DEVSTACK_TLS": "1", "ORDERS_DATABASE_URL": url}
    with pytest.raises(settings.SettingError, match="ORDERS_DATABASE_REPLICA_URL does not say"):
        load(**environ, ORDERS_DATABASE_REPLICA_URL=f"{url},postgresql://two/orders")


def test_tls_is_1_or_0() -> None:
    with pytest.raises(settings.SettingError, match="DEVSTACK_TLS is 'yes': expected 1 or 0"):
        load(DEVSTACK_TLS="yes")
    assert not load(DEVSTACK_TLS="0").tls


def test_a_process_has_only_the_secrets_that_it_uses() -> None:
    servers = {"postgres": "-owner-", "rabbitmq": "-admin-", "valkey": "-cache-", "cursor": "-key-"}
    secrets = {**servers, "webhook": "-signing-"}
    listed = {component.name: component for component in stack.components(load(), secrets)}
    readable = {
        name: {secret for secret in secrets.values() if secret in str(component.environment)}
        for name, component in listed.items()
        if name in stack.USES
    }
    assert readable == {
        "inventory": set(), "payment": set(), "webhooks": {"-signing-"}, "migrate": {"-owner-"},
        "topology": set(), "api": {"-key-"}, "relay": set(), "worker": set(),
        "notifier": {"-signing-"},
    }  # fmt: skip


def test_no_password_is_on_a_command_line() -> None:
    """Every user of the machine can read those."""
    secrets = {name: f"{name}-unlikely-elsewhere" for name in SECRETS}
    loaded = load()
    urls = [stack.addresses(loaded, secrets), *stack.logins(loaded, secrets).values()]
    passwords = set(secrets.values()) | {
        str(urlsplit(value).password)
        for variables in urls
        for value in variables.values()
        if "@" in value
    }
    assert len(passwords) > len(secrets)
    for component in stack.components(loaded, secrets):
        command_line = " ".join((*component.as_user, *component.argv))
        assert not [password for password in passwords if password in command_line], component.name


def test_each_process_asks_redis_as_a_user_of_its_own() -> None:
    urls = {
        component.name: component.environment.get("ORDERS_REDIS_URL", "")
        .partition("@")[0]
        .partition(":")[2]
        for component in stack.components(load(), SECRETS)
        if component.name in {"api", "worker", "relay", "notifier"}
    }
    users = {name: url.rpartition(":")[0] for name, url in urls.items()}
    assert users == {
        "api": "//devstack_api", "worker": "//devstack_worker", "relay": "", "notifier": "",
    }  # fmt: skip
    assert urls["api"].rpartition(":")[2] != urls["worker"].rpartition(":")[2]


def test_a_given_address_is_passed_on_and_its_standby_is_not_invented() -> None:
    loaded = load(ORDERS_DATABASE_URL="postgresql://mine/orders")
    urls = stack.addresses(loaded, SECRETS)
    environment = services.components(loaded, urls)[0].environment
    assert environment["ORDERS_DATABASE_URL"] == "postgresql://mine/orders"
    assert "ORDERS_DATABASE_REPLICA_URL" not in environment


def test_nothing_is_started_for_what_is_given() -> None:
    addresses = {
        "ORDERS_DATABASE_URL": "postgresql://mine/orders",
        "ORDERS_INVENTORY_URL": "http://mine",
        "ORDERS_PAYMENT_URL": "http://mine",
        "ORDERS_NOTIFICATION_URL": "http://mine",
        "ORDERS_NOTIFICATION_SECRET": "whsec_mine",
    }
    loaded = load(**addresses)
    components = services.components(loaded, stack.addresses(loaded, SECRETS))
    assert [c.name for c in components] == [
        "migrate",
        "topology",
        "api",
        "relay",
        "worker",
        "notifier",
    ]
    assert next(c for c in components if c.name == "migrate").needs == ()


def test_the_user_may_change_a_service_but_not_its_port() -> None:
    loaded = load(ORDERS_API_WORKERS="2", ORDERS_API_PORT="1", ORDERS_WORKER_DRAIN_S="9")
    components = {c.name: c for c in services.components(loaded, stack.addresses(loaded, SECRETS))}
    assert components["api"].environment["ORDERS_API_WORKERS"] == "2"
    assert components["api"].environment["ORDERS_API_PORT"] == "8000"
    assert components["worker"].environment["ORDERS_WORKER_DRAIN_S"] == "9"


def test_the_state_folder_is_in_the_repository_unless_set(tmp_path: Path) -> None:
    assert load().state == settings.REPOSITORY / ".devstack"
    assert load(DEVSTACK_STATE=str(tmp_path)).state == tmp_path
