"""Several requests at once in a process with one thread: one that waits lets others be worked on.

A request runs in a greenlet. To wait, it goes back to the server's loop, which keeps the client
waiting, and is called again when its answer is there. Code between two waits runs alone, as ever.
"""

import math
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from greenlet import getcurrent, greenlet
from meinheld import server

from orders.api.metrics import WAITING_SECONDS
from orders.database.connection import waiting
from orders.database.failures import ServerAway, Unwell
from orders.errors import OrdersError

Q = TypeVar("Q")
R = TypeVar("R")

# Larger sets gain nothing more, and one that falls apart asks for each by itself.
MOST_IN_SET: Final = 50
# Beyond these a request is refused: it would wait for four sets, and each holds some 40 KiB.
MOST_WAITING: Final = 4 * MOST_IN_SET
# A set that fell apart asks for each by itself for so long.
_APART_S: Final = 1.0
_log = structlog.get_logger()


class _Request(greenlet):  # type: ignore[misc] # no types
    """A request that may wait, and meinheld's name for its client."""

    client: Any


def call(
    application: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Call the application as a request that may wait; call it from the server's loop.

    Return its answer, or `server.LATER`, which meinheld knows.
    """
    request = _Request(application)
    request.client = environ["meinheld.client"]
    answer: Iterable[bytes] = request.switch(environ, start_response)
    return answer


def shared(
    single: Callable[[Q], R],
    several: Callable[[Sequence[Q]], Sequence[R]],
    subject: Callable[[Q], Hashable],
) -> Callable[[Q], R]:
    """Return a function that asks for all requests at once that wait meanwhile."""
    return SetStatement(single, several, subject).ask


class _Member(Generic[Q, R]):
    """A question of a request that waits, and what became of it."""

    __slots__ = ("answer", "error", "question", "request", "since_s")

    def __init__(self, question: Q, request: _Request) -> None:
        self.question, self.request = question, request
        self.answer: R
        self.error: Exception | None = None
        self.since_s = time.monotonic()


class SetStatement(Generic[Q, R]):
    """Asks for many requests at once what each would ask for itself.

    As `notifications.SharedStatement` does for threads: a request that comes while no
    statement runs is answered by a statement of its own, at once; those that come meanwhile wait
    for the next one, which is for all of them. Two questions with one `subject` (None: it has none)
    never share a statement. `several` answers in the order of the questions.

    When the server refuses a set, nothing of it was done, and each is asked for by itself. When
    the server is away, or nobody knows what it did, all are told so: asking again could do it
    twice.
    """

    def __init__(
        self,
        single: Callable[[Q], R],
        several: Callable[[Sequence[Q]], Sequence[R]],
        subject: Callable[[Q], Hashable],
    ) -> None:
        self._single, self._several, self._subject = single, several, subject
        self._waiting: list[_Member[Q, R]] = []
        self._answered: list[_Member[Q, R]] = []
        self._busy = False
        self._statements: greenlet | None = None  # runs them, and waits for PostgreSQL

    def ask(self, question: Q) -> R:
        """Return the answer. Raises what `single` raises, and Unwell when too many wait."""
        request = getcurrent()
        if not isinstance(request, _Request):  # another thread: it may block
            return self._single(question)
        if len(self._waiting) >= MOST_WAITING:
            raise Unwell("too many orders wait for PostgreSQL", retry_after_s=1)
        member: _Member[Q, R] = _Member(question, request)
        self._waiting.append(member)
        if not self._busy:
            self._busy = True
            # After the requests that have come already: they are of the same set.
            server.schedule_call(0, self._start)
        request.parent.switch(server.LATER)
        if member.error is not None:
            raise member.error
        return member.answer

    def _start(self) -> None:
        self._statements = greenlet(self._run)  # its parent is the loop, which calls this
        self._go_on()

    def _go_on(self, *timed_out: bool) -> None:
        """Run statements until one waits for its answer, then the requests that have theirs.

        The server's loop calls this. PostgreSQL works on the next set while the requests of the
        last one are finished.
        """
        if self._statements is not None:
            self._statements.switch(*timed_out)
        answered, self._answered = self._answered, []
        now_s = time.monotonic()
        WAITING_SECONDS.inc(sum(now_s - member.since_s for member in answered))
        for member in answered:
            server.resume(member.request.client, member.request.switch)

    def _run(self) -> None:
        waiting.set(self._wait)
        try:
            while members := self._next_set():
                self._answer(members)
                self._answered += members
        finally:
            self._busy, self._statements = False, None

    def _wait(self, descriptor: int, timeout_s: float) -> bool:
        until_s = time.monotonic() + timeout_s
        while (left_s := until_s - time.monotonic()) > 0:
            # meinheld counts in seconds, and to about two minutes.
            server.watch(descriptor, math.ceil(left_s), self._go_on)
            timed_out: bool = getcurrent().parent.switch()
            if not timed_out:
                return True
        return False

    def _next_set(self) -> list[_Member[Q, R]]:
        members: list[_Member[Q, R]] = []
        later: list[_Member[Q, R]] = []
        subjects: set[Hashable] = set()
        for member in self._waiting:
            subject = self._subject(member.question)
            if subject in subjects or len(members) == MOST_IN_SET:
                later.append(member)
                continue
            if subject is not None:
                subjects.add(subject)
            members.append(member)
        self._waiting = later
        return members

    def _answer(self, members: Sequence[_Member[Q, R]]) -> None:
        if len(members) == 1:
            self._ask_single(members[0])
            return
        try:
            answers = self._several([member.question for member in members])
            for member, answer in zip(members, answers, strict=True):
                member.answer = answer
        except ServerAway as error:
            self._fail(members, error)
        except OrdersError as error:
            _log.warning("set.fell_apart", error=str(error), orders=len(members))
            self._ask_singly(members)
        except Exception as error:  # noqa: BLE001 a bug: what was done is not known
            self._fail(members, error)

    def _ask_singly(self, members: Sequence[_Member[Q, R]]) -> None:
        """Ask for each, those without a subject first: no lock of another request holds them up."""
        until_s = time.monotonic() + _APART_S
        for member in sorted(members, key=self._has_subject):
            if time.monotonic() < until_s:
                self._ask_single(member)
            else:
                member.error = Unwell("PostgreSQL refused the set in time", retry_after_s=1)

    def _has_subject(self, member: _Member[Q, R]) -> bool:
        return self._subject(member.question) is not None

    def _ask_single(self, member: _Member[Q, R]) -> None:
        try:
            member.answer = self._single(member.question)
        except Exception as error:  # noqa: BLE001 the request is to raise it
            member.error = error

    def _fail(self, members: Sequence[_Member[Q, R]], error: Exception) -> None:
        for member in members:
            member.error = error
