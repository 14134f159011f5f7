"""The faults that our patches of meinheld mend, on the real server: memory, paths, framing."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import meinheld_wheel
from fuzz import driver
from fuzz.build import Running, running, sanitizer
from fuzz.inputs import Input
from integration.serving import Served, read_all, request, serving
from meinheld_wheel.patch import PatchFailed, apply

_MIB = 1024 * 1024


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("parser"), keepalive_s=30) as server:
        yield server


@pytest.fixture(scope="module")
def echo() -> Iterator[Running]:
    with running(sanitized=False) as server:
        yield server


def exchange(api_server: Served, *pieces: bytes, answers: int = 1) -> bytes:
    with api_server.connect(TCP_NODELAY=1) as connection:
        for piece in pieces:
            connection.sendall(piece)
        # The worker takes a client that ends sending for one that has gone: only after the answers.
        answer = b""
        while len(statuses(answer)) < answers and (received := connection.recv(65_536)):
            answer += received
        connection.shutdown(socket.SHUT_WR)
        return answer + read_all(connection)


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


def resident_bytes(server: Running) -> int:
    answer = send(server, b"GET /rss HTTP/1.1\r\nHost: a\r\n\r\n")
    return int(answer.rpartition(b"\r\n\r\n")[2])


def send(server: Running, *pieces: bytes) -> bytes:
    return driver.send(server.socket, Input(pieces, None))


HOSTILE = {
    "a field repeated": [b"GET / HTTP/1.1\r\n" + b"A: %b\r\n" % (b"x" * 500) * 60 + b"\r\n"],
    "a long name in two pieces": [
        b"GET / HTTP/1.1\r\n" + b"a" * 6000, b"a" * 6000 + b": x\r\n\r\n"
    ],
    "a long value in two pieces": [
        b"GET / HTTP/1.1\r\nA: " + b"a" * 6000, b"a" * 6000 + b"\r\n\r\n"
    ],
    "a path cut off": [b"GET /" + b"a" * 4000],
    "fields cut off": [b"GET / HTTP/1.1\r\nA: " + b"x" * 4000 + b"\r\nB: "],
    "a body cut off": [b"POST / HTTP/1.1\r\nContent-Length: 60000\r\n\r\n" + b"x" * 30000],
    "trailers": [
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
        + b"T: %b\r\n" % (b"x" * 500) * 20 + b"\r\n"
    ],
    "requests ahead": [b"GET / HTTP/1.1\r\n\r\n" * 300],
    "an answer that comes later": [b"GET /later/byte HTTP/1.1\r\n\r\n" * 20],
    "an unknown protocol": [b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"],
}  # fmt: skip


@pytest.mark.parametrize("pieces", HOSTILE.values(), ids=HOSTILE)
def test_memory_stays_flat(echo: Running, pieces: list[bytes]) -> None:
    for _ in range(200):
        send(echo, *pieces)
    bytes_before = resident_bytes(echo)
    for _ in range(1000):
        send(echo, *pieces)
    assert resident_bytes(echo) - bytes_before < 2 * _MIB
    assert echo.process.poll() is None


def test_the_workers_memory_stays_flat_under_repeated_fields(api_server: Served) -> None:
    (worker,) = api_server.workers

    def resident() -> int:
        return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096

    flood = request("GET", "/pid", *[f"A: {'x' * 500}"] * 60)
    for _ in range(50):
        exchange(api_server, flood)
    bytes_before = resident()
    for _ in range(300):
        exchange(api_server, flood)
    assert api_server.workers == {worker}
    assert resident() - bytes_before < 5 * _MIB


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/api/orders%252F1", "/api/orders%2F1"), ("/%2564ocs", "/%64ocs"), ("/%2525", "/%25"),
        ("/%64ocs", "/docs"), ("/%C3%bC", "/\xc3\xbc"), ("/%zz%4", "/%zz%4"), ("/%", "/%"),
        ("/a%3Fb?c=%2525", "/a?b"), ("/%00", "/\0"),
    ],
)  # fmt: skip
def test_a_path_is_decoded_once(echo: Running, target: str, path: str) -> None:
    answer = send(echo, request("GET", target))
    parsed = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])
    assert (parsed["path"], parsed["query"]) == (path, target.partition("?")[2])


def test_trailer_fields_are_discarded(api_server: Served) -> None:
    (worker,) = api_server.workers
    body = b"5\r\nhello\r\n0\r\nX-Trailer: a\r\nContent-Length: 9\r\nHost: b\r\n\r\n"
    message = request("POST", "/body", "Transfer-Encoding: chunked", body=body)
    answer = exchange(api_server, message + request("GET", "/pid"), answers=2)
    assert statuses(answer) == [200, 200]
    assert b"\r\n\r\n5HTTP/1.1" in answer
    assert api_server.workers == {worker}


@pytest.mark.parametrize(
    "fields",
    [
        ["Transfer-Encoding: gzip"], ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        ["Transfer-Encoding: chunked", "Content-Length: 3"],
        ["Transfer-Encoding:", " chunked"], ["Content-Length: 1 0"], ["Content-Length:"],
        ["Content-Length: 3", "Content-Length: 3"], ["Content-Length: 18446744073709551619"],
        ["Content-Length: -1"], ["Content-Length: +3"], ["X: a\0b"], ["No-colon", "-Here: x"],
        ["X: a", " folded"], ["Na me: x"],
    ],
)  # fmt: skip
def test_framing_that_can_be_read_twice_is_refused(api_server: Served, fields: list[str]) -> None:
    answer = exchange(api_server, request("POST", "/body", *fields, body=b"3\r\nabc\r\n0\r\n\r\n"))
    assert statuses(answer) == [400]


@pytest.mark.parametrize("size", ["\x803", "3x", "-3", "", "fffffffffffffffff3"])
def test_a_chunk_of_unclear_size_is_refused(api_server: Served, size: str) -> None:
    body = size.encode("latin-1") + b"\r\nabc\r\n0\r\n\r\n"
    message = request("POST", "/body", "Transfer-Encoding: chunked", body=body)
    assert set(statuses(exchange(api_server, message))) <= {400, 413}


def test_the_coding_may_be_written_in_capitals(api_server: Served) -> None:
    body = b"3\r\nabc\r\n0\r\n\r\n"
    for coding in ("Chunked", "CHUNKED"):
        message = request("POST", "/body", f"Transfer-Encoding: {coding}", body=body)
        assert exchange(api_server, message).endswith(b"\r\n\r\n3")


def test_methods_keep_their_names(echo: Running) -> None:
    for method in ("PURGE", "SEARCH", "SUBSCRIBE", "GET"):
        answer = send(echo, f"{method} / HTTP/1.1\r\n\r\n".encode())
        assert f'"method":"{method}"'.encode() in answer


@pytest.mark.parametrize("wait", ["turn", "byte", "second", "twice", "misuse"])
def test_a_request_is_answered_later_while_others_are_served(echo: Running, wait: str) -> None:
    pipelined_request = (
        b"GET /later/%b HTTP/1.1\r\n\r\nGET /next HTTP/1.1\r\nConnection: close\r\n\r\n"
    )
    with connected(echo) as connection:
        connection.sendall(pipelined_request % wait.encode())
        assert statuses(send(echo, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")) == [200]
        answer = read_all(connection)
    assert statuses(answer) == [200, 200]
    first, second = (answer.index(path) for path in (b'"/later/' + wait.encode(), b'"/next"'))
    assert first < second, "answers come in the order of their requests"


def connected(server: Running) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(server.socket))
    return connection


def test_a_request_that_fails_later_is_a_500_and_the_next_is_served(echo: Running) -> None:
    pipelined_requests = (
        b"GET /later/fails HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n"
    )
    with connected(echo) as connection:
        connection.sendall(pipelined_requests)
        assert statuses(read_all(connection)) in ([500], [500, 200])
    assert statuses(send(echo, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")) == [200]


def test_a_client_that_does_not_wait_for_its_answer_disturbs_nobody(echo: Running) -> None:
    for _ in range(20):
        connected(echo).sendall(b"GET /later/second HTTP/1.1\r\n\r\n")  # closed with the object
    for path in (b"/later/second", b"/"):
        last = b"GET %b HTTP/1.1\r\nConnection: close\r\n\r\n" % path
        assert statuses(send(echo, last)) == [200]


def test_a_server_that_stops_answers_who_waits() -> None:
    with running(sanitized=False) as server, connected(server) as connection:
        connection.sendall(b"GET /later/end HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert statuses(read_all(connection)) == [200]
        assert server.process.wait(60) == 0, server.log.read_text()


def test_a_server_that_has_stopped_refuses_to_go_on() -> None:
    with running(sanitized=False) as server, connected(server) as connection:
        connection.sendall(b"GET /later/request HTTP/1.1\r\n\r\n")
        assert statuses(send(server, b"GET /end HTTP/1.1\r\nConnection: close\r\n\r\n")) == [200]
        assert server.process.wait(60) == 0, server.log.read_text()


def test_a_request_that_resumes_another_is_answered_itself(echo: Running) -> None:
    last = b"GET /later/%b HTTP/1.1\r\nConnection: close\r\n\r\n"
    with connected(echo) as connection:
        connection.sendall(last % b"request")
        assert b'"/later/another"' in send(echo, last % b"another")
        assert b'"/later/request"' in read_all(connection)


def test_generated_requests_find_no_fault_under_address_sanitizer() -> None:
    """A short run of what `make fuzz` does for an hour."""
    if sanitizer() is None:
        pytest.skip("gcc with AddressSanitizer is not installed")
    with running(sanitized=True) as server:
        for seed in range(5000):
            driver.check(server.socket, seed)
        assert server.log.read_text() == ""
        assert server.process.poll() is None


def test_each_patch_says_why_and_a_source_that_differs_is_refused(tmp_path: Path) -> None:
    assert len(meinheld_wheel.series()) >= 8
    for patch in meinheld_wheel.series():
        why, _, _ = patch.read_text().partition("diff --git")
        assert len(why) > 80
    source = tmp_path / "meinheld/server/http_request_parser.c"
    source.parent.mkdir(parents=True)
    source.write_text("int other;\n" * 2000)
    with pytest.raises(PatchFailed, match=r"http_request_parser\.c, line \d+"):
        apply(meinheld_wheel.series()[0].read_text(), tmp_path)
