"""The collector's configuration in a real collector: what it keeps and what it removes."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from control_plane import binaries
from devstack.ports import free_port
from loadtest.drill.stack import eventually
from loadtest.drill.traces import Receiver, Span

pytestmark = pytest.mark.collector

CONFIGURATION = Path(__file__).parents[2] / "observability" / "collector" / "collector.yaml"
ERROR, SLOW, SECRETS, NORMAL = 1, 2, 3, 1000  # numbers of traces
NORMALS = 400
MILLISECOND = 1_000_000
CARD, MAIL = "4111 1111 1111 1111", "jane@example.com"
HOOK, TOKEN = "whsec_MfKQ9r8GKYqrTwjU", "eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl"


@pytest.fixture(scope="module")
def program() -> Path:
    [program_file] = binaries.build("collector")
    return program_file


@pytest.fixture(scope="module")
def exported(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """Send an error, a slow trace and many others; give what comes out behind the collector."""
    folder = tmp_path_factory.mktemp("collector")
    with Receiver() as receiver, running(program, folder, receiver.url) as endpoint:
        exporter = OTLPSpanExporter(f"{endpoint}/v1/traces")
        exporter.export([normal(number) for number in range(NORMAL, NORMAL + NORMALS)])
        exporter.export([failed(), slow(), secrets()])
        eventually(lambda: all(receiver.of(name(number)) for number in (ERROR, SLOW, SECRETS)), 60)
        yield receiver


@contextmanager
def running(program: Path, folder: Path, url: str) -> Iterator[str]:
    """Run it on free ports, with less patience; give the endpoint for OTLP over HTTP."""
    http, health = free_port(), free_port()
    changed = {
        "receivers": {"otlp": {"protocols": {
            "http": {"endpoint": f"127.0.0.1:{http}"},
            "grpc": {"endpoint": f"127.0.0.1:{free_port()}"},
        }}},
        "extensions": {"health_check": {"endpoint": f"127.0.0.1:{health}"}},
        "processors": {"tail_sampling": {"decision_wait": "2s"}},
        "service": {"telemetry": {"metrics": {"level": "none"}}},
    }  # fmt: skip
    (folder / "changed.yaml").write_bytes(msgspec.json.encode(changed))  # JSON is YAML, too
    configurations = [f"--config=file:{path}" for path in (CONFIGURATION, folder / "changed.yaml")]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [program, *configurations], env=os.environ | {"TRACES_ENDPOINT": url},
            stdout=log, stderr=log,
        ) as process,
    ):  # fmt: skip
        try:
            eventually(lambda: b"Everything is ready" in (folder / "log").read_bytes(), 60)
            yield f"http://127.0.0.1:{http}"
        finally:
            process.terminate()
            process.wait(30)


def name(number: int) -> str:
    """Return the id of a trace: spread evenly, as random ones are."""
    return f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}"


def span(
    number: int,
    attributes: dict[str, str],
    status: StatusCode = StatusCode.UNSET,
    took_ms: int = 20,
) -> ReadableSpan:
    ids = SpanContext(int(name(number), 16), number, False, TraceFlags(TraceFlags.SAMPLED))
    return ReadableSpan(
        "CreateOrder",
        ids,
        resource=Resource({"service.name": "orders-api", "service.version": "1"}),
        attributes=attributes,
        kind=SpanKind.SERVER,
        status=Status(status),
        start_time=1_800_000_000_000 * MILLISECOND,
        end_time=(1_800_000_000_000 + took_ms) * MILLISECOND,
        instrumentation_scope=InstrumentationScope("orders"),
    )


def normal(number: int) -> ReadableSpan:
    return span(number, {"http.route": "/api/orders"})


def failed() -> ReadableSpan:
    return span(ERROR, {"http.route": "/api/orders"}, StatusCode.ERROR)


def slow() -> ReadableSpan:
    return span(SLOW, {"http.route": "/api/orders"}, took_ms=1500)


def secrets() -> ReadableSpan:
    """Make an error, so that it is kept, with secrets in allowed attributes and in others."""
    attributes = {
        "payment.method": CARD,
        "http.route": f"/cards/{CARD}",
        "url.path": f"/users/{MAIL}",
        "order.status": HOOK,
        "server.address": TOKEN,
        "user.id": "7",
    }
    return span(SECRETS, attributes, StatusCode.ERROR)


def test_the_configuration_is_valid(program: Path) -> None:
    process = subprocess.run(
        [program, "validate", f"--config=file:{CONFIGURATION}"],
        env=os.environ | {"TRACES_ENDPOINT": "http://127.0.0.1:4318"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "deprecated" not in process.stderr


@pytest.mark.parametrize("number", [ERROR, SLOW], ids=["an error", "a slow one"])
def test_a_trace_that_matters_is_kept_whole(exported: Receiver, number: int) -> None:
    [span] = exported.of(name(number))
    assert span.service == "orders-api"
    assert span.attributes["http.route"] == "/api/orders"


def test_about_a_tenth_of_the_others_is_kept(exported: Receiver) -> None:
    numbers = range(NORMAL, NORMAL + NORMALS)
    share = sum(bool(exported.of(name(number))) for number in numbers) / NORMALS
    assert 0.04 < share < 0.2


def test_no_secret_passes(exported: Receiver) -> None:
    [span] = exported.of(name(SECRETS))
    text = repr(span)
    for secret in (CARD, MAIL, HOOK, TOKEN, "payment.method"):
        assert secret not in text
    assert span.attributes["user.id"] == "7"
    assert masked_attributes(span) == {"http.route": "/cards/****", "url.path": "/users/****"}


def masked_attributes(span: Span) -> dict[str, object]:
    return {key: span.attributes[key] for key in ("http.route", "url.path")}
