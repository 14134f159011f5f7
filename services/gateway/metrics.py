"""Counts the gateway's answers for Prometheus, from a log that nginx keeps for this alone.

What the api exports says nothing of requests that never reached it. nginx's status page counts
requests, not their status codes, so nginx writes one short line per answer (buffered, a second late
at most), and the lines are counted here. nginx never waits for the reader.
"""

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import prometheus_client

# Bytes after which the log begins anew: a million lines, and far below a pod's volume.
_LIMIT_BYTES: Final = 12_000_000
_EVERY_S: Final = 1.0
_FIELDS: Final = 3
# Exported as 0 from the start. Prometheus takes what it sees first for no increase: without the
# zeros, the failures between two scrapes that begin an outage would not count.
_FROM_THE_START: Final = (
    ("GET", "200", "api"),
    *((method, code, "api") for method in ("GET", "POST") for code in ("500", "502", "503", "504")),
)

REQUESTS: Final = prometheus_client.Counter(
    "gateway_requests_total",
    "Answers of the gateway, those it made itself included; scope is api or other.",
    ["http_request_method", "http_response_status_code", "scope"],
)


class AnswerLog:
    """The log of answers: `METHOD STATUS SCOPE` a line, each of few values."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._unfinished = b""

    def read(self) -> Counter[bytes]:
        """Return how often each line was written since the last call; empties a long log.

        A log that is not there yet has no lines. What is written between reading and emptying is
        not counted: a few microseconds in a million answers.
        """
        try:
            chunk = self._read()
        except FileNotFoundError:
            return Counter()
        *lines, self._unfinished = (self._unfinished + chunk).split(b"\n")
        if self._offset > _LIMIT_BYTES:
            os.truncate(self._path, 0)
            self._offset = 0
        return Counter(lines)

    def _read(self) -> bytes:
        with self._path.open("rb") as log:
            if os.fstat(log.fileno()).st_size < self._offset:  # emptied by a new nginx
                self._offset, self._unfinished = 0, b""
            log.seek(self._offset)
            chunk = log.read()
            self._offset = log.tell()
        return chunk


def count(lines: Counter[bytes]) -> None:
    """Add lines to the metric; others than ours are left out."""
    for line, number in lines.items():
        fields = line.decode("ascii", "replace").split(" ")
        if len(fields) == _FIELDS:
            REQUESTS.labels(*fields).inc(number)


def follow(log: AnswerLog) -> None:
    """Count the lines of the log until the process ends."""
    for labels in _FROM_THE_START:
        REQUESTS.labels(*labels)
    while True:
        count(log.read())
        time.sleep(_EVERY_S)


def main() -> int:
    """Serve until a signal ends the process: for stacks that run nginx without its parent."""
    parser = argparse.ArgumentParser(prog="python -m gateway.metrics", description=__doc__)
    parser.add_argument("log", type=Path, help="the log of answers that nginx writes")
    parser.add_argument("--port", type=int, required=True, help="port of /metrics")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    arguments = parser.parse_args()
    prometheus_client.start_http_server(arguments.port, arguments.host)
    follow(AnswerLog(arguments.log))
    return 0


if __name__ == "__main__":
    sys.exit(main())
