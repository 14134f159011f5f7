"""Spans through OpenTelemetry's SDK, only for sampled work.

Tracing is on when an OTLP endpoint is set (`OTEL_EXPORTER_OTLP_ENDPOINT` or its traces variant);
all other `OTEL_*` variables are OpenTelemetry's own. The sampling decision of a new trace is made
here, before any span exists. So an unsampled request costs nothing but its ids, while the SDK's own
instrumentation costs 30 to 60 µs of a request that takes 200. A sampled request pays for the light
spans of `spans.py`.
"""

import contextlib
import os
import random
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import Attributes

from orders.errors import SettingError
from orders.telemetry import context as ids
from orders.telemetry.context import Context, using

if TYPE_CHECKING:
    from orders.telemetry.spans import Recorder

SERVER: Final = SpanKind.SERVER
CLIENT: Final = SpanKind.CLIENT
PRODUCER: Final = SpanKind.PRODUCER
CONSUMER: Final = SpanKind.CONSUMER
INTERNAL: Final = SpanKind.INTERNAL

_SCOPE: Final = "orders"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
# By sampler; any other is traceidratio, of the share in OTEL_TRACES_SAMPLER_ARG.
_WHOLE_SHARES: Final = {"always_on": 1.0, "always_off": 0.0}
_NOTHING: Final = nullcontext(None)
_recorder: "Recorder | None" = None
_ratio = 0.0


def configure(process: str) -> None:
    """Start the exporter if an endpoint is set. Call it after fork: it starts a thread."""
    global _recorder, _ratio  # noqa: PLW0603 one provider a process is OpenTelemetry's own model
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return
    os.environ.setdefault("OTEL_SERVICE_NAME", f"orders-{process}")
    os.environ.setdefault("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    os.environ.setdefault("OTEL_TRACES_EXPORTER", "otlp")
    os.environ.setdefault("OTEL_METRICS_EXPORTER", "none")  # Prometheus scrapes them
    os.environ.setdefault("OTEL_LOGS_EXPORTER", "none")  # stdout carries them
    _ratio = _sampled_share(os.environ)
    # Imported late: a process that does not trace does not pay for the SDK's memory.
    from opentelemetry.distro import OpenTelemetryConfigurator
    from opentelemetry.sdk.trace import Tracer
    from opentelemetry.sdk.trace.sampling import DEFAULT_ON

    from orders.telemetry.spans import Recorder

    # The decision is taken here; the SDK only has to follow it.
    OpenTelemetryConfigurator().configure(sampler=DEFAULT_ON)  # type: ignore[no-untyped-call]
    tracer = trace.get_tracer(_SCOPE)
    if isinstance(tracer, Tracer):  # not with OTEL_SDK_DISABLED
        _recorder = Recorder(tracer, _SCOPE)


def _sampled_share(environ: Mapping[str, str]) -> float:
    """Return the share of new traces to record, from OpenTelemetry's variables.

    Any sampler besides its three counts as unset, as OpenTelemetry demands.
    """
    sampler = environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    whole_share = _WHOLE_SHARES.get(sampler.removeprefix("parentbased_"))
    if whole_share is not None:
        return whole_share
    text = environ.get("OTEL_TRACES_SAMPLER_ARG") or "1"
    with contextlib.suppress(ValueError):
        if 0 <= (share := float(text)) <= 1:
            return share
    raise SettingError("OTEL_TRACES_SAMPLER_ARG is wrong: expected a number from 0 to 1")


def shutdown() -> None:
    """Export the buffered spans and stop the exporter."""
    provider = trace.get_tracer_provider()
    stop = getattr(provider, "shutdown", None)
    if _recorder is not None and stop is not None:
        stop()


def root(
    context: Context,
    name: str,
    kind: SpanKind,
    attributes: Attributes = None,
    *,
    remote: bool,
) -> AbstractContextManager[Span | None]:
    """Run a block as a unit of work from outside: a request or a message.

    `context` and `remote` are the result of `context.accept`. Inside the block the context is
    current, and its span is the new one if the trace is sampled (None otherwise).
    """
    if _recorder is None:
        return using(context)  # ids and no span
    if remote:
        if context.sampled:
            return _recorder.child(context, name, kind, attributes, remote=True)
    elif random.random() < _ratio:  # noqa: S311 no secret
        return _recorder.first(context, name, kind, attributes)
    return using(context)  # ids and no span


def decide(context: Context) -> Context:
    """Return the context with our own sampling decision: a stranger's flag is ignored."""
    sampled = _recorder is not None and random.random() < _ratio  # noqa: S311 no secret
    if sampled is context.sampled:
        return context
    return Context(context.correlation_id, context.trace_id, context.span_id, sampled)


def span(
    name: str, attributes: Attributes = None, kind: SpanKind = INTERNAL
) -> AbstractContextManager[Span | None]:
    """Run a block as a part of the current work with its own span; None if not sampled."""
    context = ids.current()
    if _recorder is None or context is None or not context.sampled:
        return _NOTHING
    return _recorder.child(context, name, kind, attributes, remote=False)


def fail(current: Span | None, description: str) -> None:
    """Mark a span as failed with a word safe to export: a class or a status, never a payload."""
    if current is not None:
        current.set_status(Status(StatusCode.ERROR, description))
        current.set_attribute("error.type", description)
