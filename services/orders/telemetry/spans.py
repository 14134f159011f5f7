"""Spans at a fraction of the SDK's cost, exported as the same bytes.

The SDK gives each span locks, bounded collections and a sampling decision, and each `with` four
nested generators. Here a span is its fields, which its owner sets. At its end it becomes the SDK's
own `ReadableSpan` and is exported by the SDK. The SDK's limits on the number and length of
attributes (`OTEL_*_LIMIT`) do not apply: our attributes are few and short.
"""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from opentelemetry.context import attach, detach
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, Tracer
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import Attributes, AttributeValue

from orders.telemetry import context as ids
from orders.telemetry.context import Context

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)


class HashedOnce(Resource):
    """A resource that computes its hash once: the exporter needs it for each span."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.attributes, resource.schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        """Return the hash that the SDK would compute."""
        return self._hash


class Recorder:
    """Makes spans in the name of an SDK's tracer, and passes ended ones to its processors."""

    def __init__(self, tracer: Tracer, name: str) -> None:
        self.resource = HashedOnce(tracer.resource)
        self.scope = InstrumentationScope(name, "")
        self.export = tracer.span_processor.on_end
        self._new_id = tracer.id_generator.generate_span_id

    def first(
        self, context: Context, name: str, kind: SpanKind, attributes: Attributes
    ) -> "RecordedSpan":
        """Start the first span of a trace, whose ids are those of the context."""
        identity = Context(context.correlation_id, context.trace_id, context.span_id, True)
        return RecordedSpan(self, identity, None, (name, kind, attributes))

    def child(
        self,
        context: Context,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
        *,
        remote: bool,
    ) -> "RecordedSpan":
        """Start a span below that of a context, which may be another process's."""
        identity = Context(context.correlation_id, context.trace_id, f"{self._new_id():016x}", True)
        parent = _span_context(context, remote=remote)
        return RecordedSpan(self, identity, parent, (name, kind, attributes))


class RecordedSpan(Span):
    """A sampled span. Its block makes it current; an exception marks it as failed."""

    def __init__(
        self,
        recorder: Recorder,
        context: Context,
        parent: SpanContext | None,
        description: tuple[str, SpanKind, Attributes],
    ) -> None:
        self._recorder, self._ids, self._parent = recorder, context, parent
        self._name, self._kind, attributes = description
        self._context = _span_context(context, remote=False)
        self._attributes = dict(attributes) if attributes else {}
        self._events: list[Event] = []
        self._links: list[Link] = []
        self._status = _UNSET
        self._end_ns: int | None = None
        self._start_ns = time.time_ns()

    def __enter__(self) -> Self:
        """Make the span current, for this package and for users of OpenTelemetry."""
        self._otel_token = attach(set_span_in_context(self))
        self._ids_token = ids.enter(self._ids)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        """Restore the previous span, and end. GeneratorExit and the like are no failures."""
        ids.leave(self._ids_token)
        detach(self._otel_token)
        if isinstance(exc_val, Exception):
            self.record_exception(exc_val)
            self.set_status(StatusCode.ERROR, type(exc_val).__name__)
        self.end()

    def get_span_context(self) -> SpanContext:
        """Return trace id, span id and the sampled flag."""
        return self._context

    def is_recording(self) -> bool:
        """Return whether the span has not ended."""
        return self._end_ns is None

    def update_name(self, name: str) -> None:
        """Replace the span's name."""
        self._name = name

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Add or replace an attribute; ignored after the end."""
        if self._end_ns is None:
            self._attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Add several attributes to the span."""
        if self._end_ns is None:
            self._attributes.update(attributes)

    def add_event(
        self, name: str, attributes: Attributes = None, timestamp: int | None = None
    ) -> None:
        """Add an event, now or at a time in nanoseconds."""
        if self._end_ns is None:
            self._events.append(Event(name, attributes, timestamp))

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Link a span of another trace."""
        if self._end_ns is None:
            self._links.append(Link(context, attributes))

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status. OK is final; an unset status changes nothing."""
        new_status = status if isinstance(status, Status) else Status(status, description)
        if not (self._status.status_code is StatusCode.OK or new_status.is_unset):
            self._status = new_status

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: ARG002, FBT001, FBT002 OpenTelemetry's signature
    ) -> None:
        """Add an exception's class as an event; its message and traceback may be private."""
        kind = type(exception)
        builtin = kind.__module__ == "builtins"
        class_attributes = {
            "exception.type": kind.__qualname__
            if builtin
            else f"{kind.__module__}.{kind.__qualname__}"
        }
        self.add_event("exception", class_attributes | dict(attributes or {}), timestamp)

    def end(self, end_time: int | None = None) -> None:
        """End the span and pass it to the exporter; a second call does nothing."""
        if self._end_ns is not None:
            return
        self._end_ns = end_time or time.time_ns()
        recorder = self._recorder
        recorder.export(
            ReadableSpan(
                self._name,
                self._context,
                self._parent,
                recorder.resource,
                self._attributes,
                self._events,
                self._links,
                self._kind,
                None,
                self._status,
                self._start_ns,
                self._end_ns,
                recorder.scope,
            )
        )


def _span_context(context: Context, *, remote: bool) -> SpanContext:
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), remote, _SAMPLED)
