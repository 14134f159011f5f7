"""A WSGI application that does what a test asks for, served as the API is.

Run it as a program:

tiny_api.py '{"worker_class": "gthread", "port": 8000}' '{"port": 8081}'
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import msgspec
from greenlet import getcurrent
from meinheld import server

from orders.api.server.metrics_folder import metrics_folder
from orders.probes import Check
from orders.settings import AdminSettings, ApiSettings

REFUSE_FILE = "TINY_API_REFUSE"  # the check "switch" fails while this file exists


def main() -> int:
    settings = msgspec.json.decode(sys.argv[1], type=ApiSettings)
    admin = msgspec.json.decode(sys.argv[2], type=AdminSettings)
    with metrics_folder():
        from prometheus_client import Counter

        # Imported before the fork: a worker has a second to start in some tests.
        from orders.api import requests  # noqa: F401
        from orders.api.server import overlap  # noqa: F401
        from orders.api.server.application import serve

        handled = Counter("handled_total", "Requests handled.")
        Counter("never_total", "Never counted.", ["label"])
        return serve(settings, lambda: make_app(handled.inc), admin, make_checks)


def make_checks() -> list[Check]:
    def switch() -> None:
        if Path(os.environ[REFUSE_FILE]).exists():
            raise ConnectionRefusedError(111, "to 10.0.0.1 as root")

    return [Check("switch", switch)]


def make_app(count_one: Callable[[], None]) -> WSGIApplication:
    # They bring metrics, which must come after metrics_folder().
    from orders.api.problems import BodyIncomplete, BodyTooLarge
    from orders.api.requests import read_body

    ticks = [0]

    def tick() -> None:
        while True:
            time.sleep(0.01)
            ticks[0] += 1

    threading.Thread(target=tick, daemon=True).start()

    def body(environ: WSGIEnvironment) -> bytes:
        return str(len(read_body(environ))).encode()

    def sleep(environ: WSGIEnvironment) -> bytes:
        time.sleep(float(_query(environ)["s"]))
        return b"slept"

    def count(_environ: WSGIEnvironment) -> bytes:
        count_one()
        return str(os.getpid()).encode()

    together = Together()
    pages: dict[str, Callable[[WSGIEnvironment], bytes]] = {
        "/body": body,
        "/sleep": sleep,
        "/count": count,
        "/pid": lambda _: str(os.getpid()).encode(),
        "/peer": lambda environ: environ["REMOTE_ADDR"].encode(),
        "/big": lambda environ: b"x" * int(_query(environ)["n"]),
        "/ticks": lambda _: str(ticks[0]).encode(),
        "/together": together.ask,
        "/together/go": together.let_go,
    }

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status, answer = "200 OK", b""
        try:
            answer = pages[environ["PATH_INFO"]](environ)
        except BodyTooLarge:
            status = "413 Content Too Large"
        except BodyIncomplete:
            status = "400 Bad Request"
        start_response(status, [("Content-Length", str(len(answer)))])
        return [answer]

    return app


class Together:
    """Requests that wait in `overlap`: the first until /together/go, the others for it.

    Of these, /together?lost forgets its client, /together?watched waits for what is watched, and
    /together?slow blocks the process before it asks, and says whether it was asked for alone.
    """

    def __init__(self) -> None:
        from orders.api.server.overlap import CommitGroups, blocking
        from orders.database.connection import waiting

        self._how_to_wait, self._block = waiting, blocking(time.sleep)
        self._reader, self._writer = os.pipe()
        self._ask = CommitGroups(60)(
            self._answer, lambda questions: [b"%d" % len(questions)] * len(questions), _none
        )

    def ask(self, environ: WSGIEnvironment) -> bytes:
        query = environ.get("QUERY_STRING", "")
        if query == "lost":
            getcurrent().client = None
        if query == "slow":
            self._block(0.05)
        return self._ask(query)

    def _answer(self, query: str) -> bytes:
        if query == "slow":
            return b"at once" if self._how_to_wait.get() is None else b"later"
        if query == "watched":
            self._reader, self._writer = os.pipe()
            self.let_go({})
            server.watch(self._reader, 60, _none)
        if (wait := self._how_to_wait.get()) is None or not wait(self._reader, 60):
            raise TimeoutError
        return os.read(self._reader, 1)

    def let_go(self, _environ: WSGIEnvironment) -> bytes:
        os.write(self._writer, b"1")
        return b""


def _none(_: object) -> None:
    return None


def _query(environ: WSGIEnvironment) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}


if __name__ == "__main__":
    sys.exit(main())
