"""The accepted values of OpenTelemetry's own variables."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.errors import SettingError
from orders.telemetry import tracing


@pytest.mark.parametrize("share", ["many", "1.5", "-1", "nan"])
def test_a_wrong_share_of_sampled_traces_is_named(
    share: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", share)
    with pytest.raises(SettingError, match="OTEL_TRACES_SAMPLER_ARG is wrong"):
        tracing.configure("test")


@pytest.mark.parametrize(
    ("sampler", "share"),
    [
        ("always_off", 0.0), ("parentbased_always_off", 0.0), ("always_on", 1.0),
        ("PARENTBASED_ALWAYS_ON", 1.0), ("traceidratio", 0.25), ("parentbased_traceidratio", 0.25),
        ("", 0.25), ("jaeger_remote", 0.25), ("parentbased_", 0.25), ("\0é", 0.25),
    ],
)  # fmt: skip
def test_the_sampler_decides_and_one_that_is_unknown_counts_as_unset(
    sampler: str, share: float
) -> None:
    environ = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0.25"}
    assert tracing._sampled_share(environ) == share


@given(sampler=st.text(max_size=30), share=st.text(max_size=12))
def test_a_sampler_of_any_text_is_a_share_or_refused(sampler: str, share: str) -> None:
    environ = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": share}
    with suppress(SettingError):
        assert 0 <= tracing._sampled_share(environ) <= 1
