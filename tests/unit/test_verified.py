"""Which connections are verified, and which settings are refused."""

import pytest

from orders import settings, verified
from orders.errors import SettingError
from orders.settings import DatabaseSettings, MessagingSettings, TlsSettings, UpstreamSettings

VERIFIED = [
    ("ORDERS_DATABASE_URL", "postgresql://u:p@db-1,db-2:5432/o?sslmode=verify-full"),
    ("ORDERS_DATABASE_URL", "postgresql://u:p@localhost/o"),
    ("ORDERS_DATABASE_URL", "postgresql:///o?host=/run/postgresql"),
    ("ORDERS_DATABASE_URL", "postgresql://u:p@[::1]:5432/o"),
    ("ORDERS_DATABASE_URL", "postgresql://u:p@127.0.0.1:1,[::1]:2/o"),
    ("ORDERS_REDIS_URL", "redis+sentinel://u:p@127.0.0.1,[::1]:3/orders/2?sentinel_password=q"),
    ("ORDERS_AMQP_URL", "amqp://u:p@127.0.0.1,[::1]:3/v"),
    ("ORDERS_DATABASE_REPLICA_URL", "postgresql://127.0.0.1:1/o,postgresql://127.0.0.1:2/o"),
    ("ORDERS_REDIS_URL", "rediss://u:p@cache:6379/0"),
    ("ORDERS_REDIS_URL", "redis://127.0.0.1:6379/0"),
    ("ORDERS_REDIS_URL", "unix:///run/redis.sock"),
    ("ORDERS_REDIS_URL", "rediss+cluster://a,b"),
    ("ORDERS_AMQP_URL", "amqps://u:p@mq-1,mq-2/v"),
    ("ORDERS_AMQP_URL", "amqp://u:p@localhost:5672,127.0.0.1:5673/v"),
    ("ORDERS_MANAGEMENT_URL", "https://mq:15671"),
    ("ORDERS_INVENTORY_URL", "http://127.0.0.2:8091"),
    ("ORDERS_AUTH_JWKS_URL", "https://issuer/keys"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318"),
]
UNVERIFIED = [
    ("ORDERS_DATABASE_URL", "postgresql://u:p@db/o", "sslmode is prefer"),
    ("ORDERS_DATABASE_URL", "postgresql://u:p@db/o?sslmode=require", "sslmode is require"),
    ("ORDERS_DATABASE_URL", "postgresql://127.0.0.1,db/o", "sslmode=verify-full"),
    ("ORDERS_DATABASE_URL", "postgresql:///o?host=db", "sslmode=verify-full"),
    ("ORDERS_DATABASE_URL", "postgresql://127.0.0.1,[fd00::1]:2/o", "sslmode=verify-full"),
    (
        "ORDERS_DATABASE_REPLICA_URL",
        "postgresql://a/o?sslmode=verify-full,postgresql://b/o",
        "sslmode is prefer",
    ),
    ("ORDERS_REDIS_URL", "redis://cache", "use rediss://"),
    ("ORDERS_REDIS_URL", "redis+sentinel://a,b/orders", "use rediss://"),
    ("ORDERS_REDIS_URL", "rediss://cache?ssl_cert_reqs=none", "ssl_cert_reqs"),
    ("ORDERS_REDIS_URL", "rediss://cache?ssl_check_hostname=False", "ssl_check_hostname"),
    ("ORDERS_AMQP_URL", "amqp://u:p@mq/v", "use amqps://"),
    ("ORDERS_AMQP_URL", "amqp://u:p@localhost,mq/v", "use amqps://"),
    ("ORDERS_AMQP_URL", "amqps://mq/v?ssl_options={'protocol': 2}", "ssl_options"),
    ("ORDERS_MANAGEMENT_URL", "http://u:p@mq:15672", "use https://"),
    ("ORDERS_PAYMENT_URL", "http://payment", "use https://"),
    ("ORDERS_AUTH_JWKS_URL", "http://issuer/keys", "use https://"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318", "use https://"),
]


@pytest.mark.parametrize(("variable", "url"), VERIFIED)
def test_what_is_verified_or_local_is_no_fault(variable: str, url: str) -> None:
    assert list(verified.faults({variable: url})) == []


@pytest.mark.parametrize(("variable", "url", "words"), UNVERIFIED)
def test_what_is_not_verified_is_a_fault_with_advice(variable: str, url: str, words: str) -> None:
    [(name, fault)] = verified.faults({variable: url})
    assert name == variable
    assert words in fault


def test_sslmode_of_the_environment_counts() -> None:
    environ = {"ORDERS_DATABASE_URL": "postgresql://db/o", "PGSSLMODE": "verify-full"}
    assert list(verified.faults(environ)) == []


def test_nothing_is_refused_unless_it_is_asked_for() -> None:
    assert settings.load(MessagingSettings, {"ORDERS_AMQP_URL": "amqp://u:p@mq/v"})


@pytest.mark.parametrize("allowed", ["none", "ORDERS_REDIS_URL", "ORDERS_PAYMENT_URL"])
def test_a_setting_that_is_not_named_is_refused(allowed: str) -> None:
    environ = {
        "ORDERS_AMQP_URL": "amqp://u:secret@mq/v",
        "ORDERS_INVENTORY_URL": "http://stock",
        "ORDERS_DATABASE_URL": "postgresql://u:secret@db/o",
        "ORDERS_TLS_UNVERIFIED": allowed,
    }
    for group in (MessagingSettings, UpstreamSettings, DatabaseSettings):
        with pytest.raises(SettingError, match=r"is refused: .*or name ORDERS_") as error:
            settings.load(group, environ)
        assert "secret" not in str(error.value)


def test_a_setting_that_is_named_is_taken() -> None:
    environ = {
        "ORDERS_AMQP_URL": "amqp://u:p@mq/v",
        "ORDERS_INVENTORY_URL": "http://stock",
        "ORDERS_TLS_UNVERIFIED": "ORDERS_INVENTORY_URL, ORDERS_AMQP_URL",
    }
    assert settings.load(MessagingSettings, environ)
    assert settings.load(UpstreamSettings, environ)


def test_a_name_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(SettingError, match="ORDERS_TLS_UNVERIFIED is wrong: ORDERS_AMPQ_URL"):
        settings.load(TlsSettings, {"ORDERS_TLS_UNVERIFIED": "ORDERS_AMPQ_URL"})
    environ = {"ORDERS_AMQP_URL": "amqp://mq", "ORDERS_TLS_UNVERIFIED": "ORDERS_AMPQ_URL"}
    with pytest.raises(SettingError, match="ORDERS_TLS_UNVERIFIED is wrong"):
        settings.load(MessagingSettings, environ)


def test_the_collector_is_refused_at_the_start() -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        "ORDERS_TLS_UNVERIFIED": "none",
    }
    with pytest.raises(SettingError, match="OTEL_EXPORTER_OTLP_ENDPOINT is refused"):
        verified.report(environ)
    verified.report(environ | {"ORDERS_TLS_UNVERIFIED": "OTEL_EXPORTER_OTLP_ENDPOINT"})


def test_every_url_among_the_settings_is_judged() -> None:
    urls = {setting.name for setting in settings.describe() if setting.name.endswith("_URL")}
    assert urls == {name for name in verified.VARIABLES if name.startswith("ORDERS_")}
