"""A server on `meinheld.server` that answers what it read, as JSON, on a Unix socket.

A POST, and what is below /later/, is answered later, while others are served.
"""

import os
import socket
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec
from meinheld import server


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer now or later."""
    now = partial(answer, environ, start_response)
    waits = _WAITS.get(environ["PATH_INFO"])
    if waits is None and environ["REQUEST_METHOD"] == "POST":
        waits = _wait_a_turn
    return now() if waits is None else waits(environ["meinheld.client"], now)


def _wait_a_turn(client: Any, now: Callable[[], Iterable[bytes]]) -> Any:
    server.schedule_call(0, server.resume, client, now)
    return server.LATER


def _wait_for_a_byte(client: Any, now: Callable[[], Iterable[bytes]]) -> Any:
    reader, writer = socket.socketpair()

    def go_on(timed_out: bool) -> None:  # noqa: FBT001 as `watch` calls it
        assert not timed_out
        reader.close()
        writer.close()
        server.resume(client, now)

    server.watch(reader.fileno(), 5, go_on)
    server.schedule_call(0, writer.send, b"x")
    return server.LATER


def _wait_a_second(client: Any, now: Callable[[], Iterable[bytes]]) -> Any:
    silent = socket.socketpair()

    def go_on(timed_out: bool) -> None:  # noqa: FBT001 as `watch` calls it
        assert timed_out
        for end in silent:
            end.close()
        server.resume(client, now)

    server.watch(silent[0].fileno(), 1, go_on)
    return server.LATER


def _wait_twice(client: Any, now: Callable[[], Iterable[bytes]]) -> Any:
    def again() -> Any:
        return _wait_a_turn(client, now)

    return _wait_a_turn(client, again)


def _fail_later(client: Any, _now: Callable[[], Iterable[bytes]]) -> Any:
    def fail() -> Any:
        raise RuntimeError("as the test asked for")

    return _wait_a_turn(client, fail)


def _wait_for_a_request(client: Any, now: Callable[[], Iterable[bytes]]) -> Any:
    _HELD.append(partial(server.resume, client, now))
    return server.LATER


def _resume_another(client: Any, now: Callable[[], Iterable[bytes]]) -> Any:
    if not _HELD:  # it is not read yet
        server.schedule_call(1, server.resume, client, partial(_resume_another, client, now))
        return server.LATER
    _HELD.pop()()
    return now()


def _end(client: Any, now: Callable[[], Iterable[bytes]]) -> Any:
    server.stop(5)
    return _wait_a_second(client, now)


def _misuse(client: Any, now: Callable[[], Iterable[bytes]]) -> Any:
    """Answer only if each wrong call is refused."""
    reader, writer = socket.socketpair()
    server.watch(reader.fileno(), 5, bool)
    _assert_refused(
        partial(server.resume, client, now),  # it does not wait
        partial(server.watch, reader.fileno(), 5, bool),  # watched already
        partial(server.watch, -1, 5, bool),
        partial(server.watch, 10**6, 5, bool),
        partial(server.watch, writer.fileno(), 0, bool),
    )
    writer.close()  # ends the watch
    server.schedule_call(0, reader.detach)
    return now()


def _assert_refused(*calls: Callable[[], object]) -> None:
    for call in calls:
        try:
            call()
        except ValueError:
            continue
        raise AssertionError(call)


_HELD: list[Callable[[], object]] = []
_WAITS: dict[str, Callable[[Any, Callable[[], Iterable[bytes]]], Any]] = {
    "/later/turn": _wait_a_turn,
    "/later/byte": _wait_for_a_byte,
    "/later/second": _wait_a_second,
    "/later/twice": _wait_twice,
    "/later/request": _wait_for_a_request,
    "/later/another": _resume_another,
    "/later/fails": _fail_later,
    "/later/end": _end,
    "/later/misuse": _misuse,
}


def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer the request as JSON; one for /rss with the bytes of memory in use, /end ends it."""
    if environ["PATH_INFO"] == "/rss":
        with open("/proc/self/statm") as statm:  # noqa: PTH123 no file object left behind
            body = str(int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")).encode()
    else:
        body = _describe(environ)
    if environ["PATH_INFO"] == "/end":
        server.stop(1)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


def _describe(environ: dict[str, Any]) -> bytes:
    body = environ["wsgi.input"].read()
    fields = {name[5:]: text for name, text in environ.items() if name.startswith("HTTP_")}
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if name in environ:
            fields[name] = environ[name]
    return msgspec.json.encode({
        "method": environ["REQUEST_METHOD"],
        "path": environ["PATH_INFO"],
        "query": environ.get("QUERY_STRING", ""),
        "body": len(body),
        "fields": fields,
    })  # fmt: skip


def main(path: str) -> None:
    """Serve on a Unix socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(128)
    listener.setblocking(False)
    server.set_keepalive(5)
    server.set_max_content_length(1024 * 1024)
    server.set_client_body_buffer_size(1024 * 1024)
    server.set_access_logger(None)
    server.set_listen_socket([listener.fileno()])
    without_loop = partial(server.watch, sys.stdin.fileno(), 1, bool)
    _assert_refused(without_loop)
    server.run(application, silent=True)
    _assert_refused(without_loop, *_HELD)


if __name__ == "__main__":
    main(sys.argv[1])
