"""Sends requests as a customer: counts, checks and decodes the answers."""

import time
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from locust.contrib.fasthttp import FastHttpSession

from loadtest.locusts.counting import Tally

T = TypeVar("T")
NO_ANSWER = 0


class Reply(NamedTuple):
    """An answer; its status is 0 if there was none."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def decode(self, kind: type[T]) -> T:
        """Read the JSON body."""
        return msgspec.json.decode(self.content, type=kind)


class Client:
    """Send requests over a user's connections and count each under its name."""

    def __init__(self, session: FastHttpSession, tally: Tally) -> None:
        """Take the session, and the tally that counts requests."""
        self.session, self._tally = session, tally

    def send(
        self,
        name: str,
        method: str,
        path: str,
        *,
        expect: Collection[int],
        names: Mapping[int, str] | None = None,
        **options: Any,
    ) -> Reply:
        """Send one request; a status that is not expected is a failure.

        An answer whose status is in `names` is counted under that name instead of `name`.
        """
        start = time.perf_counter()
        with self.session.request(
            method, path, name=name, catch_response=True, allow_redirects=False, **options
        ) as response:
            took_ms = (time.perf_counter() - start) * 1000
            reply = Reply(
                response.status_code or NO_ANSWER, response.headers or {}, response.content or b""
            )
            is_failure = reply.status not in expect
            if is_failure:
                response.failure(f"{name}: {reply.status}")
            else:
                response.success()
        count_name = (names or {}).get(reply.status, name)
        self._tally.request(count_name, reply.status, took_ms, failed=is_failure)
        return reply

    def wrong(self, name: str, fault: str) -> None:
        """Count a well-formed answer with wrong contents."""
        self._tally.request(f"{name}: {fault}", NO_ANSWER, 0, failed=True)
