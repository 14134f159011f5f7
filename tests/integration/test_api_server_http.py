"""How a worker reads bytes from a connection: bodies, framing, slow and silent clients."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress

import msgspec
import pytest

from integration.serving import Served, eventually, read_all, read_answer, request, serving
from machine_time import machine_time_s

LIMIT = 64 * 1024


@pytest.fixture(scope="module", params=["meinheld", "gthread"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp(request.param)
    with serving(folder, worker_class=request.param, keepalive_s=30) as running:
        yield running


@pytest.fixture(scope="module")
def meinheld(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("only"), keepalive_s=30) as running:
        yield running


def chunks(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def post(server: Served, *parts: bytes, pause_s: float = 0.0) -> tuple[int, bytes]:
    """Send the parts of a request as packets of their own; return status and body of the answer."""
    with server.connect(TCP_NODELAY=1) as connection:
        for chunk in parts:
            connection.sendall(chunk)
            time.sleep(pause_s)
        status, _, body = read_answer(connection)
        return status, body


@pytest.mark.parametrize("size", [0, 1, 5000, LIMIT])
def test_a_body_with_a_length_is_read_whole(server: Served, size: int) -> None:
    message = request("POST", "/body", f"Content-Length: {size}", body=b"x" * size)
    assert post(server, message) == (200, str(size).encode())


@pytest.mark.parametrize(("size", "chunk"), [(0, 1), (5, 2), (5000, 700), (LIMIT, LIMIT)])
def test_a_chunked_body_is_read_whole(server: Served, size: int, chunk: int) -> None:
    body = chunks(b"x" * size, chunk)
    message = request("POST", "/body", "Transfer-Encoding: chunked", body=body)
    assert post(server, message) == (200, str(size).encode())


def test_a_request_without_a_body_has_an_empty_one(server: Served) -> None:
    assert post(server, request("POST", "/body")) == (200, b"0")


def test_one_byte_too_much_is_refused(server: Served) -> None:
    body = b"x" * (LIMIT + 1)
    plain = request("POST", "/body", f"Content-Length: {len(body)}", body=body)
    chunked = request("POST", "/body", "Transfer-Encoding: chunked", body=chunks(body, 8192))
    assert [post(server, plain)[0], post(server, chunked)[0]] == [413, 413]


@pytest.mark.parametrize(
    ("path", "size", "status"), [("/body", 3 * LIMIT, 413), ("/pid", LIMIT, 200), ("/pid", 1, 200)]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_connection_is_kept_as_the_answer_to_an_unread_body_says(
    server: Served, path: str, size: int, status: int, *, chunked: bool
) -> None:
    """A worker that leaves the body unread and closes has to say so: else the next request dies."""
    body = b"x" * size
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    with server.connect() as connection:
        connection.sendall(
            request("POST", path, framing, body=chunks(body, 8192) if chunked else body)
        )
        answered, fields, _ = read_answer(connection)
        assert answered == status
        if fields.get("connection") != "close":
            connection.sendall(request("GET", "/pid"))
            assert read_answer(connection)[0] == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_may_come_in_many_packets(server: Served, *, chunked: bool) -> None:
    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 7"
    body = chunks(b"seven!!", 3) if chunked else b"seven!!"
    message = request("POST", "/body", framing, body=body)
    packets = [message[start : start + 1] for start in range(len(message))]
    assert post(server, *packets, pause_s=0.001) == (200, b"7")


@pytest.mark.parametrize("framing", ["Content-Length: 10", "Transfer-Encoding: chunked"])
def test_a_body_cut_short_is_never_taken_for_whole(server: Served, framing: str) -> None:
    """The application is not called, or refuses; meinheld answers 503 by itself."""
    with server.connect() as connection:
        chunk = b"5\r\nfive!\r\n" if "chunked" in framing else b"five!"
        connection.sendall(request("POST", "/body", framing, body=chunk))
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert not answer or answer.split()[1] in (b"400", b"503")


@pytest.mark.parametrize("body", [b"zz\r\nabc\r\n0\r\n\r\n", b"3\r\nabcd\r\n0\r\n\r\n"])
def test_malformed_chunks_are_refused(server: Served, body: bytes) -> None:
    message = request("POST", "/body", "Transfer-Encoding: chunked", body=body)
    assert post(server, message)[0] == 400


def test_bytes_beyond_the_length_are_not_the_body(server: Served) -> None:
    message = request("POST", "/body", "Content-Length: 3", body=b"abcdefgh")
    status, body = post(server, message)
    assert status == 400 or (status, body) == (200, b"3")
    assert server.get("/pid"), "and harm nobody else"


def test_a_client_that_asks_first_gets_its_answer(server: Served) -> None:
    """A gthread worker sends `100 Continue` at once, meinheld only when the body is there.

    A client may not wait for ever (RFC 9110 §10.1.1), and nginx in front answers by itself.
    """
    fields = "Expect: 100-continue", "Content-Length: 3"
    with server.connect() as connection:
        connection.sendall(request("POST", "/body", *fields))
        connection.settimeout(0.3)
        with suppress(TimeoutError):
            assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.settimeout(5)
        connection.sendall(b"abc")
        status, _, body = read_answer(connection)
    assert (status, body) == (200, b"3")


def test_a_thousand_idle_connections_hinder_nobody(server: Served) -> None:
    connections = [server.connect() for _ in range(700)]
    for connection in connections:
        connection.sendall(request("GET", "/pid"))
    assert {read_answer(connection)[0] for connection in connections} == {200}
    silent = [server.connect() for _ in range(300)]
    began_s = machine_time_s()
    assert server.get("/pid")
    connections[0].sendall(request("GET", "/pid"))
    assert read_answer(connections[0])[0] == 200
    assert machine_time_s() - began_s < 2
    for connection in connections + silent:
        connection.close()


def test_slow_clients_block_nobody(meinheld: Served) -> None:
    """The only worker waits for no client: it works on whole requests."""
    header, body = meinheld.connect(), meinheld.connect()
    body.sendall(request("POST", "/body", "Content-Length: 20"))
    slow_request = request("GET", "/pid")
    for index in range(20):
        header.sendall(slow_request[index : index + 1])
        body.sendall(b"x")
        assert meinheld.get("/pid")  # within its 10 s, while both wait for us
    header.sendall(slow_request[20:])
    assert (read_answer(header)[0], read_answer(body)[2]) == (200, b"20")


@pytest.mark.parametrize("size", [33_000, 200_000, 1_400_000])
def test_a_large_answer_reaches_a_slow_reader_whole(meinheld: Served, size: int) -> None:
    """Alone, meinheld cuts it off at the end of the send buffer: at 48 KB here."""
    with meinheld.connect(SO_RCVBUF=4096, TCP_MAXSEG=536) as connection:
        connection.sendall(request("GET", f"/big?n={size}"))
        time.sleep(0.3)
        assert len(read_answer(connection)[2]) == size


def test_a_reader_that_never_reads_costs_three_seconds_at_most(meinheld: Served) -> None:
    with meinheld.connect(SO_RCVBUF=4096, TCP_MAXSEG=536) as connection:
        connection.sendall(request("GET", "/big?n=1400000"))
        time.sleep(0.2)
        began_s = machine_time_s()
        assert meinheld.get("/pid")
        assert machine_time_s() - began_s < 5


@pytest.mark.parametrize(
    "bad",
    [
        request("GET", "/pid", "Connection: Upgrade", "Upgrade: h2c"),
        request("CONNECT", "test:80"),
    ],
)
def test_a_request_meinheld_refuses_does_not_fail_the_next(meinheld: Served, bad: bytes) -> None:
    """It leaves an error pending in meinheld, which used to be raised in the next request."""
    with meinheld.connect() as connection:
        connection.sendall(bad)
        assert read_answer(connection)[0] == 400
    assert meinheld.get("/pid")


def test_the_peer_is_told_apart_on_kept_connections(meinheld: Served) -> None:
    """Unpatched, meinheld names the peer of the connection accepted last."""
    connections = []
    for host in ("127.0.0.2", "127.0.0.3"):
        connection = socket.create_connection(
            ("127.0.0.1", meinheld.port), timeout=5, source_address=(host, 0)
        )
        connections.append(connection)
        connection.sendall(request("GET", "/pid"))
        read_answer(connection)
    peers = []
    for connection in connections:
        connection.sendall(request("GET", "/peer"))
        peers.append(read_answer(connection)[2])
        connection.close()
    assert peers == [b"127.0.0.2", b"127.0.0.3"]


def test_threads_of_the_application_run_while_the_server_is_idle(server: Served) -> None:
    ticks = int(server.get("/ticks"))
    time.sleep(1)
    assert int(server.get("/ticks")) - ticks > 10  # of 100


def test_a_client_that_resets_harms_nobody(meinheld: Served) -> None:
    for _ in range(20):
        connection = meinheld.connect()
        connection.sendall(request("GET", "/big?n=300000"))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    eventually(lambda: meinheld.get("/pid"))
    assert len(meinheld.workers) == 1


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", {414, 400}),
        (request("GET", "/pid", "X: " + "x" * 9000), {431, 400}),
        (request("GET", "/pid", *["X: x"] * 130), {431, 400}),
        (b"GET /pid SECRET/9\r\nHost: a\r\n\r\n", {400}),
        (request("GET", "/pid", "SECRET"), {400}),
        (request("POST", "/body", "Transfer-Encoding: gzip"), {400}),
        (request("POST", "/body", "Content-Length: x"), {400}),
        (request("POST", "/body", "Expect: SECRET", "Content-Length: 1", body=b"x"), {417}),
    ],
)
def test_what_the_server_refuses_by_itself_is_a_problem_document(
    server: Served, message: bytes, status: set[int]
) -> None:
    with server.connect() as connection:
        connection.sendall(message)
        answered, fields, body = read_answer(connection)
    problem = msgspec.json.decode(body)
    assert answered in status
    assert fields["content-type"] == "application/problem+json"
    assert (problem["type"], problem["status"]) == ("about:blank", answered)
    assert problem["detail"] == problem["error"] != ""
    assert b"SECRET" not in body


def test_a_target_as_long_as_the_gateway_allows_is_served(server: Served) -> None:
    with server.connect() as connection:
        connection.sendall(request("GET", "/pid?" + "x" * 8100))
        assert read_answer(connection)[0] == 200
