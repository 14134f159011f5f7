"""Our spans and the SDK's, given the same work, are exported as the same OTLP message."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from typing import Final

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from opentelemetry.util.types import AnyValue

from orders.telemetry import context as ids
from orders.telemetry.context import Context
from orders.telemetry.spans import Recorder

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
CALLER = 0xB7AD6B7169203331
FIRST = 0x1000
ATTRIBUTES: Final[Mapping[str, AnyValue]] = {
    "http.request.method": "POST",
    "user.id": 7,
    "order.total": 19.9,
    "retried": True,
}
OTHER = SpanContext(TRACE_ID + 1, CALLER + 1, True, TraceFlags(TraceFlags.SAMPLED))

UNTOLD: Final = {"exception.message", "exception.stacktrace", "exception.escaped"}

Work = Callable[[Span], None]


class Counted(IdGenerator):
    """Both number their spans alike."""

    def __init__(self) -> None:
        self._ids = count(FIRST)

    def generate_span_id(self) -> int:
        return next(self._ids)

    def generate_trace_id(self) -> int:
        return TRACE_ID


class Exported:
    """A tracer whose spans stay here."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(
            resource=Resource({"service.name": "orders-test"}), id_generator=Counted(),
            shutdown_on_exit=False,
        )  # fmt: skip
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        tracer = provider.get_tracer("orders")
        assert isinstance(tracer, Tracer)
        self.tracer = tracer

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def message(self) -> ExportTraceServiceRequest:
        """Return what goes out but times and what exceptions say beside their class."""
        request = encode_spans(self.spans)
        for span in request.resource_spans[0].scope_spans[0].spans:
            assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
            span.start_time_unix_nano = span.end_time_unix_nano = 1
            for event in span.events:
                assert event.time_unix_nano > 0
                event.time_unix_nano = 1
                attributes = [entry for entry in event.attributes if entry.key not in UNTOLD]
                del event.attributes[:]
                event.attributes.extend(attributes)
            span.status.message = span.status.message.partition(": ")[0]
        return request


def by_sdk(work: Work, *, remote: bool) -> Exported:
    exported = Exported()
    sdk = exported.tracer
    caller = SpanContext(TRACE_ID, CALLER, True, TraceFlags(TraceFlags.SAMPLED))
    parent = trace.set_span_in_context(NonRecordingSpan(caller)) if remote else None
    with (
        suppress(ValueError),
        sdk.start_as_current_span("POST", parent, SpanKind.SERVER, ATTRIBUTES),
        sdk.start_as_current_span("GET /x", kind=SpanKind.CLIENT) as inner,
    ):
        work(inner)
    return exported


def by_ours(work: Work, *, remote: bool) -> Exported:
    exported = Exported()
    own_span = Recorder(exported.tracer, "orders")
    with suppress(ValueError), outer(exported, own_span, remote=remote) as span:
        now = ids.current()
        assert now is not None
        assert trace.get_current_span() is span
        with own_span.child(now, "GET /x", SpanKind.CLIENT, None, remote=False) as inner:
            work(inner)
    assert ids.current() is None
    assert not trace.get_current_span().is_recording()
    return exported


@contextmanager
def outer(exported: Exported, own_span: Recorder, *, remote: bool) -> Iterator[Span]:
    if remote:
        context = Context("c", f"{TRACE_ID:032x}", f"{CALLER:016x}", True)
        recorded = own_span.child(context, "POST", SpanKind.SERVER, ATTRIBUTES, remote=True)
    else:
        context = Context(
            "c",
            f"{TRACE_ID:032x}",
            f"{exported.tracer.id_generator.generate_span_id():016x}",
            False,
        )
        recorded = own_span.first(context, "POST", SpanKind.SERVER, ATTRIBUTES)
    with recorded as span:
        yield span


def nothing(_span: Span) -> None:
    return


def described(span: Span) -> None:
    span.set_attribute("http.response.status_code", 503)
    span.set_attributes({"http.route": "/x/{id}", "tags": ("a", "b")})
    span.update_name("GET /x/{id}")
    span.add_event("asked again", {"http.request.resend_count": 1})
    span.add_link(OTHER, {"why": "retried"})
    span.set_status(StatusCode.UNSET)


def failed(span: Span) -> None:
    span.set_status(Status(StatusCode.ERROR, "timeout"))
    span.set_attribute("error.type", "timeout")


def raised(span: Span) -> None:
    span.set_status(StatusCode.ERROR, "timeout")
    raise ValueError("not a number")


def settled(span: Span) -> None:
    span.set_status(StatusCode.OK)
    span.set_status(StatusCode.ERROR, "too late")


@pytest.mark.parametrize("remote", [True, False], ids=["of a caller", "a new trace"])
@pytest.mark.parametrize("work", [nothing, described, failed, raised, settled])
def test_a_span_of_ours_is_exported_as_the_sdks_would_be(work: Work, *, remote: bool) -> None:
    own_span, sdks = by_ours(work, remote=remote).message(), by_sdk(work, remote=remote).message()
    assert [span.name for span in own_span.resource_spans[0].scope_spans[0].spans][1] == "POST"
    assert own_span == sdks
    assert own_span.SerializeToString(deterministic=True) == sdks.SerializeToString(
        deterministic=True
    )


def test_of_an_exception_nothing_but_its_class_is_exported() -> None:
    inner, _ = (
        encode_spans(by_ours(raised, remote=True).spans).resource_spans[0].scope_spans[0].spans
    )
    assert inner.status.message == "ValueError"
    [event] = inner.events
    assert [(attribute.key, attribute.value.string_value) for attribute in event.attributes] == [
        ("exception.type", "ValueError")
    ]


def test_what_is_said_after_the_end_is_not_exported() -> None:
    spans: list[Span] = []
    exported = by_ours(spans.append, remote=True)
    message_before = exported.message()
    spans[0].set_attribute("user.id", 8)
    spans[0].set_attributes({"late": True})
    spans[0].update_name("late")
    spans[0].set_status(StatusCode.ERROR)
    spans[0].add_event("late")
    spans[0].add_link(OTHER)
    spans[0].end()
    assert not spans[0].is_recording()
    assert exported.message() == message_before
