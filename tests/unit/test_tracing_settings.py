"""What OpenTelemetry's own variables may hold."""

import pytest

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
