"""Requests of load tests to services: as which user, and how often."""

import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loadtest.target import http


@contextmanager
def listening(*, answers: bool) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Note method and login of each request; answer `[]`, or hang up."""
    requests: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append((self.command, self.headers.get("Authorization", "")))
            if answers:
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"[]")
            else:
                self.close_connection = True

        def do_POST(self) -> None:
            self.do_GET()

        def do_PUT(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


def test_user_and_password_are_read_from_the_address_as_they_were_before_it() -> None:
    with listening(answers=True) as (address, requests):
        http.send("GET", f"http://us%40er:p%2Fw%3A@{address}/")
        http.send("GET", f"http://guest@{address}/")
    logins = [b64decode(login.removeprefix("Basic ")) for _, login in requests]
    assert logins == [b"us@er:p/w:", b"guest:"]


@pytest.mark.parametrize(("method", "times"), [("GET", 3), ("PUT", 3), ("POST", 1)])
def test_only_what_may_be_done_twice_is_sent_again(method: str, times: int) -> None:
    with listening(answers=False) as (address, requests), pytest.raises(http.Unreachable):
        http.send(method, f"http://{address}/")
    assert len(requests) == times


def test_an_answer_of_another_kind_is_no_answer() -> None:
    with listening(answers=True) as (address, _), pytest.raises(http.Unreachable):
        http.get(f"http://{address}/", dict[str, str])


def test_over_the_limit_the_books_are_asked_for_again_when_told() -> None:
    answers = iter([429, 429, 200])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(next(answers))
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        assert http.get(f"http://127.0.0.1:{server.server_port}/", list[int]) == []
    finally:
        server.shutdown()
        server.server_close()
