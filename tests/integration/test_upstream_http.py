"""The resilient client against a server that misbehaves byte by byte."""

import collections
import contextlib
import contextvars
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import REGISTRY

from machine_time import machine_time_s
from orders.errors import Permanent, Transient, Unavailable
from orders.telemetry import context
from orders.upstream.answer import NotUnderstood
from orders.upstream.http import NotAsked, Upstream, decode
from orders.upstream.parallel import ParallelCalls
from orders.upstream.policy import UpstreamPolicy
from orders.upstream.transport import Call, HttpRequest, HttpResponse

GET = HttpRequest("GET", "/thing/1", "/thing/{id}")
DEFAULTS = UpstreamPolicy()
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue"

# What the server does with the n-th request (from 1); it closes the connection when told False.
Script = Callable[[socket.socket, int], bool]


class ScriptedServer:
    """A TCP server that answers each request by a script."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.requests: list[bytes] = []
        self.connections = 0
        self.open: list[socket.socket] = []
        host, port = self._listener.getsockname()
        self.url = f"http://{host}:{port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for sock in [self._listener, *self.open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                self.open.append(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            while head := self._head(sock):
                with self._lock:
                    self.requests.append(head)
                    number = len(self.requests)
                if not self._script(sock, number):
                    return

    def _head(self, sock: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            block = sock.recv(65536)
            if not block:
                return b""
            data += block
        return data


Serve = Callable[[Script], ScriptedServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:

        def make(script: Script) -> ScriptedServer:
            server = ScriptedServer(script)
            stack.callback(server.close)
            return server

        yield make


class Time:
    """A clock that only sleeping moves, and what was slept."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept_s: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.slept_s.append(duration_s)
        self.now_s += duration_s


Connect = Callable[..., Upstream]


@pytest.fixture
def connect() -> Iterator[Connect]:
    with contextlib.ExitStack() as stack:

        def make(url: str, policy: UpstreamPolicy = DEFAULTS, time: Time | None = None) -> Upstream:
            ticks = {"clock": time.clock, "sleep": time.sleep} if time else {}
            upstream = Upstream("scripted", url, policy, jitter=lambda: 0.5, **ticks)  # type: ignore[arg-type]
            stack.callback(upstream.close)
            return upstream

        yield make


class Beside:
    """An upstream that is called on one thread, beside other calls."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._calls: ParallelCalls[str] = ParallelCalls(upstream.policy.concurrency)

    @property
    def breaker_state(self) -> str:
        return self._upstream.breaker_state

    def call(self, request: HttpRequest, read: Callable[[HttpResponse], bool]) -> bool:
        run = contextvars.copy_context().run
        self._calls.begin("token", self._upstream, Call(request, read), run)
        while not (results := self._calls.wait(5)):
            pass
        [(token, result, error)] = results
        assert token == "token"
        if error is not None:
            raise error
        return bool(result)

    def close(self) -> None:
        self._calls.close()


Reach = Callable[..., Upstream | Beside]


@pytest.fixture(params=["on a thread", "beside others"])
def reach(connect: Connect, request: pytest.FixtureRequest) -> Iterator[Reach]:
    """Both ways of asking: what an answer means is the same."""
    with contextlib.ExitStack() as stack:

        def make(url: str, policy: UpstreamPolicy = DEFAULTS) -> Upstream | Beside:
            upstream = connect(url, policy)
            if request.param == "on a thread":
                return upstream
            beside = Beside(upstream)
            stack.callback(beside.close)
            return beside

        yield make


def answering(*answers: bytes) -> Script:
    """Send these answers in turn; the last one again and again."""

    def script(sock: socket.socket, number: int) -> bool:
        sock.sendall(answers[min(number, len(answers)) - 1])
        return True

    return script


def status(code: int, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {code} X", "Content-Length: 0", *headers, "", ""]
    return "\r\n".join(lines).encode()


def truth(reply: HttpResponse) -> bool:
    return decode(reply, bool)


def calls(outcome: str) -> float:
    labels = {"upstream": "scripted", "outcome": outcome}
    return REGISTRY.get_sample_value("upstream_request_duration_seconds_count", labels) or 0


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504, 599])
def test_a_passing_failure_is_retried_after_a_growing_wait(
    serve: Serve, connect: Connect, code: int
) -> None:
    server, time = serve(answering(status(code), status(code), OK)), Time()
    count_before = calls("success")
    assert connect(server.url, time=time).call(GET, truth) is True
    assert time.slept_s == [2.5, 4.5]
    assert calls("success") == count_before + 1


def test_all_tries_are_spent_when_the_deadline_allows(serve: Serve, connect: Connect) -> None:
    server, time = serve(answering(status(503))), Time()
    upstream = connect(server.url, UpstreamPolicy(deadline_s=60), time)
    with pytest.raises(Transient, match="failed after 4 tries: server_error: status 503"):
        upstream.call(GET, truth)
    assert time.slept_s == [2.5, 4.5, 8.5]
    assert len(server.requests) == 4


def test_a_wait_that_would_outlast_the_deadline_is_not_begun(
    serve: Serve, connect: Connect
) -> None:
    server, time = serve(answering(status(503))), Time()
    with pytest.raises(Transient):
        connect(server.url, time=time).call(GET, truth)
    assert time.slept_s == [2.5, 4.5]  # 8.5 more would be past 10
    assert len(server.requests) == 3


def test_retry_after_replaces_the_wait(serve: Serve, connect: Connect) -> None:
    server, time = serve(answering(status(429, "Retry-After: 5"), OK)), Time()
    assert connect(server.url, time=time).call(GET, truth) is True
    assert time.slept_s == [5.5]


def test_a_retry_after_beyond_the_deadline_is_handed_to_the_caller(
    serve: Serve, connect: Connect
) -> None:
    server, time = serve(answering(status(503, "Retry-After: 120"))), Time()
    with pytest.raises(Transient) as failed:
        connect(server.url, time=time).call(GET, truth)
    assert failed.value.retry_after_s == 120
    assert (time.slept_s, len(server.requests)) == ([], 1)


def problem(code: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {code} No\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("code", [401, 403, 404, 405, 410, 422])
@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error": "Not Found"}', b'{"error": "other"}'])
def test_a_no_without_a_code_of_the_contract_is_an_outage_of_the_way_there(
    serve: Serve, reach: Reach, code: int, body: bytes
) -> None:
    server = serve(answering(problem(code, body)))
    upstream = reach(server.url, UpstreamPolicy(breaker_failures=1))
    with pytest.raises(Unavailable) as failed:
        upstream.call(GET, truth)
    assert (failed.value.dependency, failed.value.pause) == ("scripted", False)
    assert (len(server.requests), upstream.breaker_state) == (1, "open")
    with pytest.raises(NotAsked) as failed:
        upstream.call(GET, truth)
    assert failed.value.pause


@pytest.mark.parametrize("code", [401, 403])
def test_a_credential_that_is_refused_says_nothing_of_the_order(
    serve: Serve, reach: Reach, code: int
) -> None:
    server = serve(answering(problem(code, b'{"error": "invalid"}')))
    with pytest.raises(Unavailable):
        reach(server.url, UpstreamPolicy()).call(GET, truth)


@pytest.mark.parametrize("code", [400, 404, 409, 410, 422])
def test_a_definite_no_is_permanent_and_not_retried(serve: Serve, reach: Reach, code: int) -> None:
    server = serve(answering(problem(code, b'{"error": "invalid"}')))
    upstream = reach(server.url, UpstreamPolicy(breaker_failures=1))
    with pytest.raises(Permanent):
        upstream.call(GET, truth)
    assert (len(server.requests), upstream.breaker_state) == (1, "closed")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b" " * 100_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"2\r\n  \r\n" * 40_000,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
        status(302, "Location: http://127.0.0.1:1/elsewhere"),
    ],
    ids=["html", "empty", "long", "endless", "gzip", "redirect"],
)  # fmt: skip
def test_an_answer_outside_the_contract_is_transient_and_counts(
    serve: Serve, reach: Reach, answer: bytes
) -> None:
    server = serve(answering(answer))
    upstream = reach(server.url, UpstreamPolicy(breaker_failures=1))
    with pytest.raises(Transient, match="invalid_answer"):
        upstream.call(GET, truth)
    assert (len(server.requests), upstream.breaker_state) == (1, "open")


def test_a_chunked_answer_is_fine(serve: Serve, reach: Reach) -> None:
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ntr\r\n2\r\nue\r\n0\r\n\r\n"
    assert reach(serve(answering(chunks)).url).call(GET, truth) is True


def test_a_cut_connection_is_retried(serve: Serve, connect: Connect) -> None:
    def script(sock: socket.socket, number: int) -> bool:
        if number == 1:
            return False  # no answer at all
        if number == 2:
            sock.sendall(OK[:-2])  # half of one
            return False
        sock.sendall(OK)
        return True

    server, time = serve(script), Time()
    assert connect(server.url, time=time).call(GET, truth) is True
    assert (len(server.requests), time.slept_s) == (3, [2.5, 4.5])


def test_nobody_listening_is_transient(reach: Reach) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    upstream = reach(f"http://127.0.0.1:{port}", UpstreamPolicy(retries=0))
    with pytest.raises(Transient, match="connection_error: NewConnectionError"):
        upstream.call(GET, truth)


def test_a_timeout_is_retried_and_counts(serve: Serve, connect: Connect) -> None:
    server, time = serve(lambda _sock, _number: True), Time()  # never answers
    policy = UpstreamPolicy(try_timeout_s=0.1, breaker_failures=2)
    upstream = connect(server.url, policy, time)
    with pytest.raises(Transient, match="failed after 2 tries: timeout"):
        upstream.call(GET, truth)
    assert upstream.breaker_state == "open"


def test_the_time_left_bounds_each_try(serve: Serve, reach: Reach) -> None:
    server = serve(lambda _sock, _number: True)
    policy = UpstreamPolicy(
        deadline_s=2, try_timeout_s=1.4, backoff_base_s=0.02, backoff_jitter_s=0
    )
    started_s = machine_time_s()
    with pytest.raises(Transient, match="failed after 2 tries"):
        reach(server.url, policy).call(GET, truth)
    assert machine_time_s() - started_s < 2.7  # two whole tries would take 2.8


def dripping(response: bytes) -> Script:
    """Send a byte every 20 ms: no single read ever waits long."""

    def script(sock: socket.socket, _number: int) -> bool:
        for byte in response:
            sock.sendall(bytes([byte]))
            time.sleep(0.02)
        return True

    return script


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b" " * 1000,
    ],
    ids=["header", "body"],
)
def test_the_budget_of_a_user_holds_against_a_dripping_server(
    serve: Serve, reach: Reach, response: bytes
) -> None:
    server = serve(dripping(response))
    upstream = reach(server.url, UpstreamPolicy(concurrency=1).within(0.3))
    started_s = machine_time_s()
    with pytest.raises(Transient, match="timeout"):
        upstream.call(GET, truth)
    assert machine_time_s() - started_s < 10  # all of it would take 20
    # The thread left behind has ended too: the only permit is free again.
    assert eventually(lambda: "timeout" in failure(upstream))


def failure(upstream: Upstream | Beside) -> str:
    with pytest.raises(Transient) as failed:
        upstream.call(GET, truth)
    return str(failed.value)


def eventually(holds: Callable[[], object], within_s: float = 60) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.02)
    return False


def test_a_full_bulkhead_refuses_at_once(serve: Serve, connect: Connect) -> None:
    release = threading.Event()

    def script(sock: socket.socket, _number: int) -> bool:
        release.wait(60)
        sock.sendall(OK)
        return True

    server = serve(script)
    upstream = connect(server.url, UpstreamPolicy(concurrency=2))
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(upstream.call, GET, truth) for _ in range(2)]
        assert eventually(lambda: len(server.requests) == 2)
        started_s = machine_time_s()
        with pytest.raises(Transient, match="bulkhead_full: 2 in flight"):
            upstream.call(GET, truth)
        assert machine_time_s() - started_s < 1
        release.set()
        assert [call.result() for call in calls] == [True, True]
    assert upstream.call(GET, truth) is True
    assert upstream.breaker_state == "closed"


def test_calls_one_after_another_need_one_permit_and_one_connection(
    serve: Serve, reach: Reach
) -> None:
    server = serve(answering(OK))
    upstream = reach(server.url, UpstreamPolicy(concurrency=1))
    assert [upstream.call(GET, truth) for _ in range(100)] == [True] * 100
    assert server.connections == 1


def test_the_breaker_opens_refuses_probes_once_and_closes(serve: Serve, connect: Connect) -> None:
    healed = threading.Event()
    probing = threading.Event()

    def script(sock: socket.socket, _number: int) -> bool:
        if healed.is_set():
            probing.wait(60)
        sock.sendall(OK if healed.is_set() else status(500))
        return True

    server, time = serve(script), Time()
    upstream = connect(server.url, UpstreamPolicy(retries=0), time)
    for _ in range(5):
        with pytest.raises(Transient, match="server_error"):
            upstream.call(GET, truth)
    with pytest.raises(Transient, match="circuit_open") as error:
        upstream.call(GET, truth)
    assert error.value.retry_after_s == 30
    assert len(server.requests) == 5

    healed.set()
    time.now_s += 30
    with ThreadPoolExecutor(8) as threads:
        results = [threads.submit(attempt, upstream) for _ in range(8)]
        assert eventually(lambda: sum(result.done() for result in results) == 7)
        probing.set()
        assert sorted(result.result() for result in results) == [False] * 7 + [True]
    assert len(server.requests) == 6
    assert upstream.breaker_state == "closed"


def attempt(upstream: Upstream) -> bool:
    try:
        return upstream.call(GET, truth)
    except Transient:
        return False


def test_an_open_breaker_ends_the_retries_of_a_call(serve: Serve, connect: Connect) -> None:
    server, time = serve(answering(status(503))), Time()
    upstream = connect(server.url, UpstreamPolicy(breaker_failures=2), time)
    with pytest.raises(Transient, match="failed after 2 tries"):
        upstream.call(GET, truth)
    assert time.slept_s == [2.5]


def test_the_ids_of_the_work_at_hand_go_along(serve: Serve, reach: Reach) -> None:
    server = serve(answering(OK))
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
    ids, _ = context.accept("corr-7", traceparent)
    with context.using(ids):
        reach(server.url).call(GET, truth)
    head = server.requests[0].lower()
    assert b"x-correlation-id: corr-7\r\n" in head
    assert f"traceparent: {traceparent}\r\n".encode() in head


def test_no_proxy_no_netrc_no_cookie(
    serve: Serve, reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    answer = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: session=1\r\n\r\n")
    server = serve(answering(answer))
    upstream = reach(server.url)
    assert upstream.call(GET, truth) is True
    assert upstream.call(GET, truth) is True
    assert b"cookie" not in server.requests[1].lower()


def test_the_path_and_the_credentials_of_the_url_go_along(serve: Serve, reach: Reach) -> None:
    server = serve(answering(OK))
    reach(server.url.replace("://", "://me:secret@") + "/stock/").call(GET, truth)
    head = server.requests[0]
    assert head.startswith(b"GET /stock/thing/1 ")
    assert b"authorization: basic bwu6c2vjcmv0\r\n" in head.lower()


# -- many at once -------------------------------------------------------------------------


def all_of(
    calls: "ParallelCalls[int]", number: int, within_s: float = 10
) -> dict[int, Exception | None]:
    """Wait until so many calls have ended; return the error of each."""
    results: dict[int, Exception | None] = {}
    until_s = time.monotonic() + within_s
    while len(results) < number and time.monotonic() < until_s:
        results |= {token: error for token, _, error in calls.wait(0.1)}
    return results


@contextlib.contextmanager
def parallel(width: int) -> Iterator["ParallelCalls[int]"]:
    calls: ParallelCalls[int] = ParallelCalls(width)
    try:
        yield calls
    finally:
        calls.close()


def run_of() -> Callable[..., object]:
    return contextvars.copy_context().run


def test_a_call_that_hangs_does_not_hold_up_the_others(serve: Serve, connect: Connect) -> None:
    release = threading.Event()

    def script(sock: socket.socket, number: int) -> bool:
        if number == 1:
            release.wait(60)
        sock.sendall(OK)
        return True

    upstream = connect(serve(script).url, UpstreamPolicy(concurrency=4))
    with parallel(4) as calls:
        for number in range(40):
            calls.begin(number, upstream, Call(GET, truth), run_of())
        results = all_of(calls, 39)
        assert len(results) == 39
        assert set(results.values()) == {None}
        assert calls.fresh == 1
        release.set()
        assert set(all_of(calls, 1).values()) == {None}


def test_no_more_calls_are_in_flight_than_it_is_wide(serve: Serve, connect: Connect) -> None:
    lock, now, maximum = threading.Lock(), 0, 0

    def script(sock: socket.socket, _number: int) -> bool:
        nonlocal now, maximum
        with lock:
            now += 1
            maximum = max(maximum, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        sock.sendall(OK)
        return True

    upstream = connect(serve(script).url, UpstreamPolicy(concurrency=8))
    with parallel(3) as calls:
        for number in range(12):
            calls.begin(number, upstream, Call(GET, truth), run_of())
        assert set(all_of(calls, 12).values()) == {None}
    assert maximum == 3


def test_a_failed_try_is_made_again_while_others_go_on(serve: Serve, connect: Connect) -> None:
    server = serve(answering(status(503), OK))
    policy = UpstreamPolicy(backoff_base_s=0.1, backoff_jitter_s=0, concurrency=1)
    upstream = connect(server.url, policy)
    with parallel(1) as calls:
        for number in range(3):
            calls.begin(number, upstream, Call(GET, truth), run_of())
        order = list(all_of(calls, 3).items())
    assert order == [(1, None), (2, None), (0, None)]
    assert (len(server.requests), server.connections) == (4, 1)


def test_a_retry_does_not_come_before_the_upstream_wants_it(serve: Serve, connect: Connect) -> None:
    server = serve(answering(status(429, "Retry-After: 1"), OK))
    policy = UpstreamPolicy(try_timeout_s=0.2, backoff_jitter_s=0)
    with parallel(1) as calls:
        began_s = time.monotonic()
        calls.begin(1, connect(server.url, policy), Call(GET, truth), run_of())
        assert all_of(calls, 1) == {1: None}
        assert time.monotonic() - began_s >= 1


def test_a_connection_that_the_server_closed_while_idle_is_replaced(
    serve: Serve, connect: Connect
) -> None:
    server = serve(answering(OK))
    upstream = connect(server.url, UpstreamPolicy(breaker_failures=1, retries=0))
    with parallel(2) as calls:
        calls.begin(1, upstream, Call(GET, truth), run_of())
        assert all_of(calls, 1) == {1: None}
        for sock in server.open:
            sock.shutdown(socket.SHUT_RDWR)
        assert calls.wait(1) == []
        calls.begin(2, upstream, Call(GET, truth), run_of())
        assert all_of(calls, 1) == {2: None}
    assert (server.connections, upstream.breaker_state) == (2, "closed")


def held_until(event: threading.Event) -> Script:
    """Send no answer before the event."""

    def script(sock: socket.socket, _number: int) -> bool:
        event.wait(60)
        sock.sendall(OK)
        return True

    return script


def test_connections_that_the_server_closed_unnoticed_fail_no_call(
    serve: Serve, connect: Connect
) -> None:
    """The server restarted while this process waited for a statement."""
    go_on = threading.Event()
    server = serve(held_until(go_on))
    upstream = connect(server.url, UpstreamPolicy(retries=0))
    with parallel(16) as calls:
        for number in range(16):
            calls.begin(number, upstream, Call(GET, truth), run_of())
        assert eventually(lambda: calls.wait(0.01) == [] and len(server.requests) == 16)
        go_on.set()
        assert set(all_of(calls, 16).values()) == {None}
        for sock in server.open:
            sock.shutdown(socket.SHUT_RDWR)
        for number in range(50):
            calls.begin(number, upstream, Call(GET, truth), run_of())
        assert all_of(calls, 50) == dict.fromkeys(range(50))
    assert upstream.breaker_state == "closed"


def answers_the_first(*, then: bool) -> Script:
    """Answer no other request; `then`: whether their connections stay open."""

    def script(sock: socket.socket, number: int) -> bool:
        if number > 1:
            return then
        sock.sendall(OK)
        return True

    return script


def leaves_the_second(sock: socket.socket, number: int) -> bool:
    """Answer each request but the second, and end the connection of that one."""
    if number == 2:
        return False
    sock.sendall(OK)
    return True


@pytest.mark.parametrize("state", ["closed", "half-open"])
def test_a_kept_connection_that_ends_without_an_answer_costs_no_try(
    serve: Serve, connect: Connect, state: str
) -> None:
    def script(sock: socket.socket, number: int) -> bool:
        if number == 1 or len(server.open) > 1:
            sock.sendall(OK)
            return True
        return False

    server, ticks = serve(script), Time()
    upstream = connect(server.url, UpstreamPolicy(breaker_failures=1, retries=0), ticks)
    with parallel(2) as calls:
        calls.begin(1, upstream, Call(GET, truth), run_of())
        assert all_of(calls, 1) == {1: None}
        if state == "half-open":
            upstream.leave(upstream.admit(), failed=True)
            upstream.release()
            ticks.now_s += 30
        calls.begin(2, upstream, Call(GET, truth), run_of())
        assert all_of(calls, 1) == {2: None}
    assert (server.connections, upstream.breaker_state) == (2, "closed")


def test_a_call_that_ends_its_connections_fails(serve: Serve, connect: Connect) -> None:
    """The call is repeated once, not once for each connection."""

    def script(sock: socket.socket, number: int) -> bool:
        if number > 1:
            return False
        sock.sendall(OK)
        return True

    server = serve(script)
    upstream = connect(server.url, UpstreamPolicy(breaker_failures=1, retries=0))
    with parallel(2) as calls:
        calls.begin(1, upstream, Call(GET, truth), run_of())
        assert all_of(calls, 1) == {1: None}
        calls.begin(2, upstream, Call(GET, truth), run_of())
        [error] = all_of(calls, 1).values()
    assert isinstance(error, Unavailable)
    assert (len(server.requests), upstream.breaker_state) == (3, "open")


@pytest.mark.parametrize("request_", [GET, HttpRequest("PUT", "/thing/1", "/thing/{id}", b"{}")])
def test_a_request_that_crosses_with_the_end_of_its_connection_costs_no_try(
    serve: Serve, connect: Connect, request_: HttpRequest
) -> None:
    """The same on a thread: a user's request has a single try."""
    server = serve(leaves_the_second)
    upstream = connect(server.url, UpstreamPolicy(breaker_failures=1).within(30))
    assert upstream.call(request_, truth)
    assert upstream.call(request_, truth)
    assert (server.connections, len(server.requests)) == (2, 3)
    assert upstream.breaker_state == "closed"


def test_a_request_that_ends_its_connections_is_sent_twice_and_fails(
    serve: Serve, connect: Connect
) -> None:
    server = serve(answers_the_first(then=False))
    upstream = connect(server.url, UpstreamPolicy(breaker_failures=1).within(30))
    assert upstream.call(GET, truth)
    with pytest.raises(Unavailable, match="connection_error"):
        upstream.call(GET, truth)
    assert (len(server.requests), upstream.breaker_state) == (3, "open")


def test_a_request_whose_time_is_over_is_not_sent_again(serve: Serve, connect: Connect) -> None:
    server = serve(answers_the_first(then=True))
    upstream = connect(server.url, UpstreamPolicy().within(0.5))
    assert upstream.call(GET, truth)
    with pytest.raises(Unavailable, match="timeout"):
        upstream.call(GET, truth)
    upstream.close()
    for thread in upstream._transport._threads._threads:
        thread.join(60)
    assert len(server.requests) == 2


OLD = b"HTTP/1.0 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"


def test_those_behind_an_answer_that_is_not_understood_are_asked(
    serve: Serve, connect: Connect
) -> None:
    upstream = connect(serve(answering(OLD, OK)).url, UpstreamPolicy(concurrency=1))
    with parallel(1) as calls:
        for number in range(35):
            calls.begin(number, upstream, Call(GET, truth), run_of())
        results = all_of(calls, 35)
    assert isinstance(results.pop(0), NotUnderstood)
    assert results == dict.fromkeys(range(1, 35))


def test_an_answer_that_is_not_understood_does_not_close_the_breaker(
    serve: Serve, connect: Connect
) -> None:
    server, ticks = serve(answering(status(500), OLD, status(500))), Time()
    upstream = connect(server.url, UpstreamPolicy(breaker_failures=1, retries=0), ticks)
    with pytest.raises(Unavailable):
        upstream.call(GET, truth)
    ticks.now_s += 30
    with parallel(1) as calls:
        calls.begin(1, upstream, Call(GET, truth), run_of())
        assert isinstance(all_of(calls, 1)[1], NotUnderstood)
    assert upstream.breaker_state == "open"
    with pytest.raises(Unavailable, match="server_error"):  # it is the probe
        upstream.call(GET, truth)
    assert upstream.breaker_state == "open"


def test_what_is_under_way_at_the_end_gives_its_places_back(serve: Serve, connect: Connect) -> None:
    server = serve(lambda _sock, _number: True)
    upstream = connect(server.url, UpstreamPolicy(concurrency=2, try_timeout_s=0.2, retries=0))
    with parallel(2) as calls:
        for number in range(2):
            calls.begin(number, upstream, Call(GET, truth), run_of())
        assert eventually(lambda: calls.wait(0.01) == [] and len(server.requests) == 2)
    with pytest.raises(Transient, match="timeout"):
        upstream.call(GET, truth)


def test_whoever_wakes_it_ends_the_wait(connect: Connect) -> None:
    with parallel(1) as calls:
        threading.Timer(0.1, calls.wake).start()
        assert calls.wait(None) == []


def test_no_wake_is_lost_however_many_come_at_once() -> None:
    arrived: collections.deque[threading.Event] = collections.deque()

    def arrive(calls: "ParallelCalls[int]") -> None:
        for _ in range(3000):
            noticed = threading.Event()
            arrived.append(noticed)
            calls.wake()
            noticed.wait(60)

    with parallel(1) as calls, ThreadPoolExecutor(4) as threads:
        arrivals = [threads.submit(arrive, calls) for _ in range(4)]
        wakes, longest_s = 0, 0.0
        while wakes < 4 * 3000:
            began_s = time.monotonic()
            calls.wait(None if not arrived else 0)
            longest_s = max(longest_s, time.monotonic() - began_s)
            while arrived:
                arrived.popleft().set()
                wakes += 1
        for arrival in arrivals:
            arrival.result()
    assert longest_s < 15
