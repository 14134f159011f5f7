"""An OTLP receiver: collects the spans that the processes export over HTTP."""

import gzip
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue


class Span(NamedTuple):
    """The members of a span that tests compare."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, object]
    status: str
    events: list[tuple[str, dict[str, object]]]


class Receiver:
    """Listens while the block runs; `url` is the OTLP endpoint."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.take(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take(self, body: bytes) -> None:
        """Keep the spans of one export."""
        request = ExportTraceServiceRequest.FromString(body)
        spans = [
            Span(
                next(
                    entry.value.string_value
                    for entry in resource.resource.attributes
                    if entry.key == "service.name"
                ),
                span.name,
                span.trace_id.hex(),
                span.span_id.hex(),
                span.parent_span_id.hex(),
                _attributes(span.attributes),
                span.status.message,
                [(event.name, _attributes(event.attributes)) for event in span.events],
            )
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self._spans += spans

    def of(self, trace_id: str) -> list[Span]:
        """Return the spans of one trace."""
        with self._lock:
            return [span for span in self._spans if span.trace_id == trace_id]

    def everything(self) -> list[Span]:
        """Return the spans of all traces."""
        with self._lock:
            return list(self._spans)


def _attributes(entries: Iterable[KeyValue]) -> dict[str, object]:
    return {
        entry.key: getattr(entry.value, entry.value.WhichOneof("value"))  # type: ignore[arg-type]
        for entry in entries
    }
