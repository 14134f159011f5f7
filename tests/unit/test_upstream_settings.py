"""Settings of the simulators: a bad one is named, with what is wrong about it."""

import pytest

from upstreams.settings import SettingError, describe, load
from upstreams.webhooks import signing_keys


def test_defaults_hold_and_an_empty_variable_counts_as_unset() -> None:
    settings = load({"UPSTREAMS_HOST": " "}, default_port=8091)
    assert (settings.host, settings.port, settings.log_level) == ("127.0.0.1", 8091, "info")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UPSTREAMS_PORT", "x"),
        ("UPSTREAMS_PORT", "65536"),
        ("UPSTREAMS_THREADS", "1"),
        ("UPSTREAMS_LOG_LEVEL", "loud"),
        ("UPSTREAMS_WEBHOOK_TOLERANCE_S", "0"),
    ],
)
def test_a_bad_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"^{name} is wrong: "):
        load({name: value}, default_port=1)


@pytest.mark.parametrize("name", ["UPSTREAMS_CERTIFICATE_FILE", "UPSTREAMS_KEY_FILE"])
def test_a_certificate_and_its_key_come_together(name: str) -> None:
    with pytest.raises(SettingError, match="set both, or neither"):
        load({name: "/file.pem"}, default_port=1)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_?", "MDEyMw==", "whsec_MDEyMw== whsec_"])
def test_a_secret_that_is_no_webhook_secret_is_refused(secret: str) -> None:
    with pytest.raises(SettingError, match="UPSTREAMS_WEBHOOK_SECRET"):
        signing_keys(secret)


def test_two_secrets_are_two_keys() -> None:
    assert signing_keys("whsec_MDEyMw==  whsec_NDU2Nw==\n") == [b"0123", b"4567"]


def test_help_lists_every_variable() -> None:
    assert describe().count("UPSTREAMS_") == 9
