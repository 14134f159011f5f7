"""The requests that the real nginx with the real configuration passes on, refuses and answers."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import nginx
from machine_time import machine_time_s

SERVICES = Path(__file__).parents[2] / "services"
PROBLEM_MEMBERS = {
    "type", "title", "status", "detail", "instance", "error", "correlationId", "traceId",
}  # fmt: skip


class Answer:
    """One parsed HTTP response."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.raw = raw
        self.status = int(lines[0].split()[1]) if lines[0].startswith("HTTP/") else 0
        self.fields = [tuple(line.split(": ", 1)) for line in lines[1:]]

    def all(self, name: str) -> list[str]:
        return [field[1] for field in self.fields if field[0].lower() == name.lower()]

    def field(self, name: str) -> str:
        (value,) = self.all(name)
        return value

    def json(self) -> Any:
        return json.loads(self.body)


class Upstream(ThreadingHTTPServer):
    """A server in the api's place that records what arrives."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", free_port()), Handler)
        self.seen: list[tuple[str, str, list[tuple[str, str]], bytes]] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def headers(self) -> dict[str, list[str]]:
        """Give the header fields of the last request, names in lower case."""
        fields: dict[str, list[str]] = {}
        for name, value in self.seen[-1][2]:
            fields.setdefault(name.lower(), []).append(value)
        return fields


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path, self.headers.items(), body))
        status, fields, content = 200, {"Content-Type": "application/json"}, b'{"ok": true}'
        if self.path == "/refuse":
            status, content = 503, b'{"error": "the api says so"}'
            fields = {"Content-Type": "application/problem+json", "Retry-After": "7"}
        if self.path == "/steer":
            fields |= {
                "X-Accel-Redirect": "/refuse",
                "X-Powered-By": "nobody",
                "Server": "secret/1",
            }
        if self.path == "/slow":
            time.sleep(1)
        if self.path == "/die":
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("X-Correlation-ID", self.headers.get("X-Correlation-ID", "none"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_HEAD = do_OPTIONS = do_DELETE = do_PURGE = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@pytest.fixture(scope="module")
def api() -> Iterator[Upstream]:
    server = Upstream()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def gateway(state: Path, api: Upstream) -> Iterator[int]:
    with running(state, "gateway", api.port) as program:
        yield port_of(program)


@pytest.fixture(scope="module")
def lonely_gateway(state: Path) -> Iterator[int]:
    """Run a gateway whose api is not there."""
    with running(state, "lonely-gateway", free_port()) as program:
        yield port_of(program)


class running:  # noqa: N801 - used as a function
    def __init__(self, state: Path, name: str, api_port: int) -> None:
        listen = f"127.0.0.1:{free_port()}"
        site = nginx.Site(state=state, listen=listen, api=f"127.0.0.1:{api_port}", name=name)
        self.program = Program(nginx.component(site))

    def __enter__(self) -> Program:
        self.program.start()
        return self.program

    def __exit__(self, *_: object) -> None:
        self.program.stop()


def port_of(program: Program) -> int:
    return int(program.component.address.rpartition(":")[2])


@pytest.fixture
def requests_at_api(api: Upstream) -> list[Any]:
    """Give the list of requests that reach the api, emptied."""
    api.seen.clear()
    return api.seen


def send(port: int, raw: bytes, timeout_s: float = 15) -> Answer:
    """Send bytes, then read until the gateway closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(raw)
        received = b""
        try:
            while block := connection.recv(65_536):
                received += block
        except ConnectionResetError:
            pass
    return Answer(received)


def request(
    port: int, path: str = "/x", *fields: str, method: str = "GET", body: bytes = b""
) -> Answer:
    """Send a well-formed request with further header lines."""
    lines = [f"{method} {path} HTTP/1.1", "Host: shop", "Connection: close", *fields, "", ""]
    return send(port, "\r\n".join(lines).encode() + body)


def assert_problem(answer: Answer, status: int) -> None:
    """Check that an answer has the form of the gateway's own errors."""
    assert answer.status == status
    assert answer.field("Content-Type") == "application/problem+json"
    problem = answer.json()
    assert set(problem) == PROBLEM_MEMBERS
    assert problem["status"] == status
    assert problem["error"] == problem["detail"]
    assert problem["correlationId"] == answer.field("X-Correlation-ID")
    assert problem["traceId"] == answer.field("traceparent").split("-")[1]


POST = b"POST /x HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n"

AMBIGUOUS = {
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two equal lengths": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": POST + b"Content-Length: +3\r\n\r\nabc",
    "a huge length": POST + b"Content-Length: 99999999999999999999\r\n\r\nabc",
    "length and chunked": POST
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "chunked twice": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, chunked": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "misspelt chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked with a tail": POST + b"Transfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /x HTTP/1.0\r\nHost: shop\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before the colon": POST + b"Content-Length : 3\r\n\r\nabc",
    "a folded field": POST + b"X-Long: one\r\n two\r\nContent-Length: 0\r\n\r\n",
    "a folded first field": b"GET /x HTTP/1.1\r\n Host: shop\r\nConnection: close\r\n\r\n",
    "a tab fold": POST + b"X-Long: one\r\n\ttwo\r\nContent-Length: 0\r\n\r\n",
    "NUL in a value": POST + b"X-Nul: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "NUL in a name": POST + b"X\x00Nul: ab\r\nContent-Length: 0\r\n\r\n",
    "NUL in the target": b"GET /x\x00y HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    "a bare CR": POST + b"X-CR: a\rb\r\nContent-Length: 0\r\n\r\n",
    "a length without a colon": POST + b"Content-Length\r\n\r\n",
    "a coding without a colon": POST + b"Transfer-Encoding\r\n\r\n",
    "no name": POST + b": nameless\r\nContent-Length: 0\r\n\r\n",
    "a space in a name": POST + b"Bad Name: x\r\nContent-Length: 0\r\n\r\n",
    "no Host": b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n",
    "no Host in HTTP/1.0": b"GET /x HTTP/1.0\r\n\r\n",
    "an empty Host": b"GET /x HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
    "two Hosts": b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
    "a wrong Host": b"GET /x HTTP/1.1\r\nHost: a/b\r\nConnection: close\r\n\r\n",
    "a wrong request line": b"GET  \r\nHost: shop\r\n\r\n",
    "a wrong version": b"GET /x HTTP/1.x\r\nHost: shop\r\n\r\n",
    "a lower-case method": b"get /x HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    "a space in the target": b"GET /x y HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    "a wrong escape": b"GET /%zz HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
    "a wrong chunk size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "a wrong chunk end": POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcde\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_it_cannot_be_sure_about_is_refused(
    gateway: int, requests_at_api: list[Any], name: str
) -> None:
    assert_problem(send(gateway, AMBIGUOUS[name]), 400)
    assert requests_at_api == []


def test_http_0_9_is_refused(gateway: int, requests_at_api: list[Any]) -> None:
    """An HTTP/0.9 answer has no head, so only the body shows the refusal."""
    answer = send(gateway, b"GET /x\r\n")
    assert b'"status":400' in answer.raw
    assert requests_at_api == []


@pytest.mark.parametrize(
    "line", ["X(y): 1", "X-a@b: 2", "Content_Length: 5", "Transfer_Encoding: x"]
)
def test_a_field_whose_name_is_no_token_does_not_reach_the_api(
    gateway: int, api: Upstream, line: str
) -> None:
    request(gateway, "/x", line)
    assert line.partition(":")[0].lower() not in api.headers()


def test_a_bare_line_feed_never_makes_two_requests(
    gateway: int, requests_at_api: list[Any]
) -> None:
    send(
        gateway,
        b"POST /x HTTP/1.1\nHost: shop\nConnection: close\nContent-Length: 38\n\n"
        b"GET /smuggled HTTP/1.1\r\nHost: shop\r\n\r\n",
    )
    assert [call[1] for call in requests_at_api] in ([], ["/x"])


def test_a_chunked_body_arrives_whole_with_a_length(gateway: int, api: Upstream) -> None:
    chunks = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
    answer = request(gateway, "/x", "Transfer-Encoding: chunked", method="POST", body=chunks)
    assert answer.status == 200
    assert api.seen[-1][3] == b"hello world"
    assert api.headers()["content-length"] == ["11"]
    assert "transfer-encoding" not in api.headers()


def test_expect_100_continue_is_answered(gateway: int, requests_at_api: list[Any]) -> None:
    with socket.create_connection(("127.0.0.1", gateway), timeout=30) as connection:
        connection.sendall(POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"ok")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert len(requests_at_api) == 1


def test_a_body_of_64_kib_passes(gateway: int, api: Upstream) -> None:
    body = b"x" * 65_536
    assert request(gateway, "/x", "Content-Length: 65536", method="POST", body=body).status == 200
    assert api.seen[-1][3] == body


def test_a_larger_body_is_413(gateway: int, requests_at_api: list[Any]) -> None:
    body = b"x" * 65_537
    assert_problem(request(gateway, "/x", "Content-Length: 65537", method="POST", body=body), 413)
    assert requests_at_api == []


def test_a_larger_chunked_body_is_413(gateway: int, requests_at_api: list[Any]) -> None:
    body = b"10001\r\n" + b"x" * 65_537 + b"\r\n0\r\n\r\n"
    answer = request(gateway, "/x", "Transfer-Encoding: chunked", method="POST", body=body)
    assert_problem(answer, 413)
    assert requests_at_api == []


def test_a_long_target_is_414(gateway: int, requests_at_api: list[Any]) -> None:
    assert_problem(request(gateway, "/" + "x" * 9000), 414)
    assert requests_at_api == []


def test_a_large_field_is_431(gateway: int, requests_at_api: list[Any]) -> None:
    assert_problem(request(gateway, "/x", "X-Large: " + "x" * 9000), 431)
    assert requests_at_api == []


def test_many_fields_are_431(gateway: int, requests_at_api: list[Any]) -> None:
    assert_problem(request(gateway, "/x", *(f"X-{n}: {'x' * 100}" for n in range(400))), 431)
    assert requests_at_api == []


def test_a_future_version_is_refused(gateway: int, requests_at_api: list[Any]) -> None:
    answer = send(gateway, b"GET /x HTTP/3.0\r\nHost: shop\r\n\r\n")
    assert_problem(answer, 505)
    assert requests_at_api == []


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_trace_and_connect_are_405(gateway: int, requests_at_api: list[Any], method: str) -> None:
    target = "shop:80" if method == "CONNECT" else "/x"
    answer = request(gateway, target, method=method)
    assert_problem(answer, 405)
    assert answer.field("Allow")
    assert requests_at_api == []


@pytest.mark.parametrize("method", ["PURGE", "FOO", "get"])
def test_unknown_methods_never_reach_the_api(
    gateway: int, requests_at_api: list[Any], method: str
) -> None:
    assert_problem(request(gateway, method=method), 405 if method.isupper() else 400)
    assert requests_at_api == []


def test_a_refusal_carries_the_callers_trace(gateway: int) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = request(gateway, "/x", f"traceparent: 00-{trace}-00f067aa0ba902b7-01", method="PURGE")
    assert answer.json()["traceId"] == trace


def test_more_than_a_hundred_fields_are_431(gateway: int, requests_at_api: list[Any]) -> None:
    assert_problem(request(gateway, "/x", *(f"X-{n}: x" for n in range(130))), 431)
    assert requests_at_api == []


def test_a_target_beyond_ascii_is_400(gateway: int, requests_at_api: list[Any]) -> None:
    assert_problem(request(gateway, "/api/orders/١"), 400)
    assert requests_at_api == []


def test_an_error_of_the_api_passes_untouched(gateway: int) -> None:
    answer = request(gateway, "/refuse")
    assert answer.status == 503
    assert answer.body == b'{"error": "the api says so"}'
    assert answer.all("Retry-After") == ["7"]


def test_no_api_is_502_with_retry_after(lonely_gateway: int) -> None:
    answer = request(lonely_gateway)
    assert_problem(answer, 502)
    assert answer.field("Retry-After")


def test_an_api_that_dies_in_a_request_is_502_and_not_asked_again(
    gateway: int, requests_at_api: list[Any]
) -> None:
    answer = request(gateway, "/die", "Content-Length: 2", method="POST", body=b"ok")
    assert_problem(answer, 502)
    assert len(requests_at_api) == 1


def test_head_of_an_error_has_no_body(lonely_gateway: int) -> None:
    answer = request(lonely_gateway, method="HEAD")
    assert (answer.status, answer.body) == (502, b"")
    assert answer.field("Content-Type") == "application/problem+json"


def test_the_instance_is_the_path_without_anything_that_breaks_json(lonely_gateway: int) -> None:
    answer = request(lonely_gateway, '/api/orders/"x"?secret=1')
    assert answer.json()["instance"] == "/api/orders/"


def test_a_correlation_id_is_kept_and_returned_once(gateway: int, api: Upstream) -> None:
    answer = request(gateway, "/x", "X-Correlation-ID: My_id-1.2")
    assert api.headers()["x-correlation-id"] == ["My_id-1.2"]
    assert answer.field("X-Correlation-ID") == "My_id-1.2"


@pytest.mark.parametrize(
    "fields",
    [
        ["X-Correlation-ID: has space"],
        ["X-Correlation-ID: " + "x" * 65],
        ["X-Correlation-ID: é"],
        ["X-Correlation-ID: one", "X-Correlation-ID: two"],
        ["X-Correlation-ID:"],
        [],
    ],
)
def test_any_other_correlation_id_is_replaced(
    gateway: int, api: Upstream, fields: list[str]
) -> None:
    answer = request(gateway, "/x", *fields)
    (passed_id,) = api.headers()["x-correlation-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", passed_id)
    assert answer.field("X-Correlation-ID") == passed_id


def test_forwarding_fields_of_the_client_are_replaced(gateway: int, api: Upstream) -> None:
    claims = ["X-Forwarded-For: 1.1.1.1", "X-Real-IP: 1.1.1.1", "Forwarded: for=1.1.1.1"]
    request(gateway, "/x", *claims, "X-Forwarded-Proto: https", "X_Forwarded_For: 2.2.2.2")
    fields = api.headers()
    assert fields["x-forwarded-for"] == ["127.0.0.1"]
    assert not fields.keys() & {"forwarded", "x-real-ip", "x-forwarded-proto", "x_forwarded_for"}


def test_the_api_is_told_when_a_request_was_passed_on(gateway: int, api: Upstream) -> None:
    start_s = time.time()
    request(gateway, "/x", "X-Request-Start: t=1")
    (stamp,) = api.headers()["x-request-start"]
    assert start_s - 1 < float(stamp.removeprefix("t=")) < time.time() + 1


def test_only_the_fields_that_the_api_reads_reach_it(gateway: int, api: Upstream) -> None:
    headers = {
        "Content-Type": "a/b", "Content-Encoding": "gzip", "Authorization": "Bearer x",
        "Idempotency-Key": "k", "If-None-Match": '"v1"', "traceparent": "t",
        "X-Correlation-ID": "c",
    }  # fmt: skip
    noise = ["Cookie: a=b", "Accept: */*", "User-Agent: x", "Connection: close", *["A: b"] * 60]
    request(gateway, "/x", *noise, *[f"{name}: {text}" for name, text in headers.items()])
    fields = api.headers()
    assert {name: fields.pop(name.lower()) for name in headers} == {
        name: [text] for name, text in headers.items()
    }
    assert fields.keys() == {"host", "x-forwarded-for", "x-request-start"}


def test_every_field_that_the_api_reads_is_passed_on() -> None:
    sources = "".join(path.read_text() for path in (SERVICES / "orders/api").rglob("*.py"))
    read = set(re.findall(r'"HTTP_([A-Z_]+)"|"(CONTENT_TYPE)"', sources))
    configuration = (SERVICES / "gateway/nginx.conf").read_text()
    passed_fields = re.findall(r"proxy_set_header (\S+) [^\"]", configuration)
    assert {(name or other).replace("_", "-").lower() for name, other in read} <= {
        name.lower() for name in passed_fields
    }


def test_security_fields_are_on_every_answer(gateway: int, lonely_gateway: int) -> None:
    for answer in (request(gateway), request(gateway, "/refuse"), request(lonely_gateway)):
        assert answer.field("X-Content-Type-Options") == "nosniff"
        assert answer.field("X-Frame-Options") == "DENY"
        assert "default-src" in answer.field("Content-Security-Policy")
        assert answer.field("Server") == "nginx"


def test_the_api_cannot_steer_the_gateway(gateway: int, requests_at_api: list[Any]) -> None:
    answer = request(gateway, "/steer")
    assert answer.body == b'{"ok": true}'
    assert [name for name, _ in answer.fields if name.lower().startswith("x-accel")] == []
    assert answer.all("X-Powered-By") == []
    assert len(requests_at_api) == 1


def test_the_internal_location_cannot_be_asked_for(
    gateway: int, requests_at_api: list[Any]
) -> None:
    assert_problem(request(gateway, "/_problem"), 404)
    assert requests_at_api == []


def test_the_target_reaches_the_api_as_it_was_sent(gateway: int, api: Upstream) -> None:
    request(gateway, "/api//%252e/../x?a=%2F&b")
    assert api.seen[-1][1] == "/api//%252e/../x?a=%2F&b"


def test_connections_to_the_api_are_kept_open(gateway: int, api: Upstream) -> None:
    request(gateway)
    assert "close" not in api.headers().get("connection", [])


def test_a_thousand_idle_connections_do_not_hinder_others(gateway: int) -> None:
    with ExitStack() as idle:
        for _ in range(1000):
            idle.enter_context(socket.create_connection(("127.0.0.1", gateway), timeout=30))
        began_s = machine_time_s()
        assert request(gateway).status == 200
        assert machine_time_s() - began_s < 1


def test_a_slow_header_is_given_up(gateway: int, requests_at_api: list[Any]) -> None:
    """A client that drips a byte now and then is not kept for longer than 10 s altogether."""
    start_s, began_s = time.monotonic(), machine_time_s()
    with socket.create_connection(("127.0.0.1", gateway), timeout=20) as connection:
        connection.sendall(b"GET /x HTTP/1.1\r\n")
        connection.settimeout(0.5)
        while time.monotonic() - start_s < 60:
            try:
                connection.sendall(b"X: y\r\n")
                if connection.recv(1000) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    assert time.monotonic() - start_s > 8
    assert machine_time_s() - began_s < 14
    assert requests_at_api == []


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"POST /gateway/livez HTTP/1.1\r\nContent-Length: 60000", 200),
        (b"BREW /x HTTP/1.1\r\nContent-Length: 60000", 405),
        (b"POST /\xe4 HTTP/1.1\r\nContent-Length: 60000", 400),
        (b"POST /x HTTP/1.1\r\nContent-Length: 70000", 413),
    ],
)
def test_an_answered_client_that_goes_on_sending_is_let_go(
    gateway: int, line: bytes, status: int
) -> None:
    """One byte every half second would have kept nginx reading for half a minute."""
    with socket.create_connection(("127.0.0.1", gateway), timeout=15) as client:
        client.sendall(line + b"\r\nHost: a\r\n\r\nx")
        assert client.recv(12) == b"HTTP/1.1 %d" % status
        assert _sends_for_s(client, at_most_s=15) < 15


def _sends_for_s(client: socket.socket, at_most_s: float) -> float:
    """Send a byte every half second until the connection is cut off; return how long it lasted."""
    started_s = time.monotonic()
    with suppress(ConnectionError):
        while time.monotonic() - started_s < at_most_s:
            client.sendall(b"x")
            time.sleep(0.5)
    return time.monotonic() - started_s


def test_each_request_is_one_line_of_json_in_the_access_log(gateway: int, state: Path) -> None:
    request(gateway, '/logged"\\', "X-Correlation-ID: find-me")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        lines = [json.loads(line) for line in access_log(state).read_text().splitlines()]
        entries = [line for line in lines if line["correlationId"] == "find-me"]
        if entries:
            break
        time.sleep(0.05)
    assert entries[0]["status"] == "200"
    assert float(entries[0]["requestTime"]) >= 0


def access_log(state: Path) -> Path:
    return state / "gateway" / "access.log"
