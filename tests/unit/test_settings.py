"""A wrong setting is named, with what is wrong about it, before anything starts."""

from collections.abc import Iterator

import msgspec
import pytest

from devstack.settings import PORTS
from orders import settings
from orders.errors import SettingError
from orderservice_operator.children import processes


def test_values_come_from_the_environment_with_their_types() -> None:
    environ = {
        "ORDERS_API_PORT": "8123",
        "ORDERS_API_DOCS": "false",
        "ORDERS_API_DRAIN_DELAY_S": "2.5",
    }
    api = settings.load(settings.ApiSettings, environ)
    assert (api.port, api.docs, api.drain_delay_s) == (8123, False, 2.5)


def test_the_local_stack_and_the_operator_give_each_process_its_own_admin_port() -> None:
    operator = {process.name: process.admin_port for process in processes.ALL}
    local = {name: PORTS[f"{name}_admin"] for name in settings.ADMIN_PORTS}
    assert operator == local == settings.ADMIN_PORTS


def test_an_empty_variable_counts_as_unset() -> None:
    assert settings.load(settings.ApiSettings, {"ORDERS_API_PORT": " "}).port == 8000


@pytest.mark.parametrize(
    ("group", "environ", "named"),
    [
        (settings.DatabaseSettings, {}, "ORDERS_DATABASE_URL is not set"),
        (settings.DatabaseSettings, {"ORDERS_DATABASE_URL": "localhost"}, "ORDERS_DATABASE_URL"),
        (
            settings.DatabaseSettings,
            {"ORDERS_DATABASE_URL": "postgresql://u:pa%ss@h/db"},
            "ORDERS_DATABASE_URL is wrong",
        ),
        (settings.DatabaseSettings, {"ORDERS_DATABASE_URL": "mysql://h/db"}, "is wrong"),
        (
            settings.DatabaseSettings,
            {
                "ORDERS_DATABASE_URL": "postgresql://h/db",
                "ORDERS_DATABASE_REPLICA_URL": "postgresql://a/db,mysql://b/db",
            },
            "ORDERS_DATABASE_REPLICA_URL is wrong",
        ),
        (
            settings.DatabaseSettings,
            {
                "ORDERS_DATABASE_URL": "postgresql://h/db",
                "ORDERS_DATABASE_DURABILITY": "remote",
            },
            "ORDERS_DATABASE_DURABILITY is wrong",
        ),
        (
            settings.NotificationSettings,
            {"ORDERS_NOTIFICATION_URL": "ftp://h/"},
            "ORDERS_NOTIFICATION_URL is wrong",
        ),
        (
            settings.NotificationSettings,
            {
                "ORDERS_NOTIFICATION_URL": "http://h/",
                "ORDERS_NOTIFICATION_SECRET": "whsec_" + "A" * 25,
            },
            "ORDERS_NOTIFICATION_SECRET is wrong",
        ),
        (
            settings.NotificationSettings,
            {
                "ORDERS_NOTIFICATION_URL": "http://h/",
                "ORDERS_NOTIFICATION_SECRET": " ".join(["whsec_" + "A" * 24] * 3),
            },
            "ORDERS_NOTIFICATION_SECRET is wrong",
        ),
        *(
            (
                settings.NotificationSettings,
                {
                    "ORDERS_NOTIFICATION_URL": "http://h/",
                    "ORDERS_NOTIFICATION_SECRET": "whsec_" + "A" * 24,
                    "ORDERS_NOTIFICATION_ALLOW_PRIVATE": value,
                },
                "ORDERS_NOTIFICATION_ALLOW_PRIVATE is wrong",
            )
            for value in ("yes", "10.0.0.1/8", "10.0.0.0/8,")
        ),
        (settings.ApiSettings, {"ORDERS_API_PORT": "0"}, "ORDERS_API_PORT is wrong"),
        (settings.ApiSettings, {"ORDERS_API_PORT": "http"}, "ORDERS_API_PORT is wrong"),
        (settings.ApiSettings, {"ORDERS_API_WORKER_CLASS": "sync"}, "gthread"),
        (settings.AuthSettings, {"ORDERS_AUTH": "maybe"}, "ORDERS_AUTH is wrong"),
        (settings.CacheSettings, {"ORDERS_REDIS_TIMEOUT_S": "nan"}, "ORDERS_REDIS_TIMEOUT_S"),
        (settings.CacheSettings, {"ORDERS_REDIS_PREFIX": "my orders:"}, "ORDERS_REDIS_PREFIX"),
        (settings.CacheSettings, {"ORDERS_REDIS_PREFIX": "{x}:"}, "ORDERS_REDIS_PREFIX is wrong"),
        (settings.CacheSettings, {"ORDERS_REDIS_PREFIX": "x" * 151}, "ORDERS_REDIS_PREFIX"),
        (settings.OrderSettings, {"ORDERS_CURSOR_SECRET": "short"}, "ORDERS_CURSOR_SECRET"),
    ],
)
def test_an_error_names_the_variable(
    group: type[settings.Group], environ: dict[str, str], named: str
) -> None:
    with pytest.raises(SettingError, match=named):
        settings.load(group, environ)


def test_an_error_says_what_to_write_and_not_by_which_pattern_it_was_held() -> None:
    faults = list(_faults())
    assert {"ORDERS_DATABASE_URL", "ORDERS_REDIS_PREFIX"} <= {name for name, _ in faults}
    for name, text in faults:
        assert text.startswith(f"{name} is ")
        assert "regex" not in text
        assert "Secret." not in text
        assert len(text) > len(f"{name} is wrong: expected ") + 10, text


def _faults() -> Iterator[tuple[str, str]]:
    """Yield each variable that a space in it is wrong for, with what is said then and if unset."""
    required_settings = {
        setting.name: value
        for setting in settings.describe()
        if setting.default == "(required)"
        for value in [_GOOD.get(setting.name, "http://h/")]
    }
    for group in settings.GROUPS.values():
        for field in group.__struct_fields__:
            name = settings.variable(group, field)
            for environ in (
                required_settings | {name: "a b{"},
                {k: v for k, v in required_settings.items() if k != name},
            ):
                try:
                    settings.load(group, environ)
                except SettingError as error:
                    yield name, str(error)


_GOOD = {
    "ORDERS_DATABASE_URL": "postgresql://h/db", "ORDERS_NOTIFICATION_SECRET": "whsec_" + "A" * 24,
    "ORDERS_CURSOR_SECRET": "A" * 16,
}  # fmt: skip


@pytest.mark.parametrize("separator", [" ", "\n", " \n "])
def test_two_secrets_of_webhooks_are_separated_by_space(separator: str) -> None:
    old, new = "whsec_" + "A" * 24, "whsec_" + "B" * 26 + "=="
    environ = {
        "ORDERS_NOTIFICATION_URL": "http://h/",
        "ORDERS_NOTIFICATION_SECRET": f"{new}{separator}{old}\n",
    }
    assert settings.load(settings.NotificationSettings, environ).secrets == (new, old)


@pytest.mark.parametrize(
    ("value", "private", "networks"),
    [
        ("", False, []),
        ("false", False, []),
        ("true", True, []),
        ("10.0.0.0/8, fd00::/8", False, ["10.0.0.0/8", "fd00::/8"]),
    ],
)
def test_which_receivers_of_webhooks_are_allowed(
    value: str, private: object, networks: list[str]
) -> None:
    environ = {
        "ORDERS_NOTIFICATION_URL": "http://h/",
        "ORDERS_NOTIFICATION_SECRET": "whsec_" + "A" * 24,
        "ORDERS_NOTIFICATION_ALLOW_PRIVATE": value,
    }
    loaded = settings.load(settings.NotificationSettings, environ)
    assert loaded.private_allowed == private
    assert [str(network) for network in loaded.networks] == networks


def test_an_error_never_shows_a_secret() -> None:
    with pytest.raises(SettingError) as caught:
        settings.load(settings.OrderSettings, {"ORDERS_CURSOR_SECRET": "s3cret"})
    assert "s3cret" not in str(caught.value)


def test_every_setting_is_documented_once() -> None:
    listed = list(settings.describe())
    assert all(setting.description for setting in listed)
    assert len({setting.name for setting in listed}) == len(listed)


def test_misspelt_variables_are_found() -> None:
    assert settings.unknown({"ORDERS_API_PROT": "1", "ORDERS_API_PORT": "1", "PATH": ""}) == [
        "ORDERS_API_PROT"
    ]


def test_defaults_are_within_their_own_bounds() -> None:
    for group in settings.GROUPS.values():
        for field in msgspec.structs.fields(group):
            if not field.required and field.default is not None:
                msgspec.convert(field.default, field.type, strict=False)


@pytest.mark.parametrize(("worker_class", "at_once"), [("meinheld", 1), ("gthread", 8)])
def test_threads_count_only_where_there_are_any(worker_class: str, at_once: int) -> None:
    environ = {"ORDERS_API_WORKER_CLASS": worker_class, "ORDERS_API_THREADS": "8"}
    assert settings.load(settings.ApiSettings, environ).at_once == at_once


def test_replicas_are_a_list_of_urls_each_of_which_may_name_several_hosts() -> None:
    loaded = settings.DatabaseSettings(
        url="postgresql://h/db", replica_url="postgresql://a,b:1/db,postgres://c/db"
    )
    assert loaded.replica_urls == ["postgresql://a,b:1/db", "postgres://c/db"]
    assert settings.DatabaseSettings(url="postgresql://h/db").replica_urls == []
