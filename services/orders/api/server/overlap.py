"""Handle several requests at once in a process with one thread: while one waits, others run.

A request runs in a greenlet. To wait, it switches to the server's loop, which resumes it when its
answer is there. Between two waits, no other request runs.
"""

import select
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final, Generic, ParamSpec, TypeVar
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from greenlet import getcurrent, greenlet
from meinheld import server

from orders.api.metrics import WAITING_SECONDS
from orders.database.connection import waiting
from orders.database.statements import DatabaseUnavailable, ServerAway
from orders.errors import OrdersError

Q = TypeVar("Q")
R = TypeVar("R")
P = ParamSpec("P")

# Larger sets are not faster, and a set that PostgreSQL refuses is repeated order by order.
MAX_SET_SIZE: Final = 50
# Further requests are refused: they would wait for four sets, and each takes about 40 KiB.
MAX_WAITING: Final = 4 * MAX_SET_SIZE
# Longest time for the single statements of a refused set; its other orders join the next set.
_SINGLES_S: Final = 1.0
# A request that blocked the process this long, because it asked Inventory, commits at once. It does
# not wait for requests that came meanwhile: each may ask Inventory, too. A commit takes less.
_LONG_BLOCK_S: Final = 0.01
# How often a wait looks for requests that are overdue. meinheld counts in whole seconds.
_OVERDUE_CHECK_S: Final = 1
_log = structlog.get_logger()


class _Request(greenlet):  # type: ignore[misc] # no types
    """A request that may wait, and meinheld's name for its client."""

    client: Any
    has_blocked = False


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


def blocking(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function that blocks: a request that it blocks for long commits at once."""

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        began_s = time.monotonic()
        try:
            return function(*args, **kwargs)
        finally:
            request = getcurrent()
            if isinstance(request, _Request) and time.monotonic() - began_s >= _LONG_BLOCK_S:
                request.has_blocked = True

    return call


class CommitGroups:
    """Makes functions whose calls from several requests share a statement: their commit group.

    A question that was not sent within `patience_s` is refused.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s

    def __call__(
        self,
        single: Callable[[Q], R],
        several: Callable[[Sequence[Q]], Sequence[R]],
        subject: Callable[[Q], Hashable],
        /,
    ) -> Callable[[Q], R]:
        """Return a function that answers one question."""
        return CommitGroup(single, several, subject, self._patience_s).ask


class _Member(Generic[Q, R]):
    """The question of a request that waits, then its answer or error."""

    __slots__ = ("answer", "error", "question", "request", "since_s")

    def __init__(self, question: Q, request: _Request) -> None:
        self.question, self.request = question, request
        self.answer: R
        self.error: Exception | None = None
        self.since_s = time.monotonic()


class CommitGroup(Generic[Q, R]):
    """Runs one statement for several requests.

    While no statement runs, a request gets a statement of its own at once. Requests that come
    meanwhile share the next one. Two questions with the same `subject` never share a statement;
    None is no subject. `several` answers in the order of the questions. A question that was not
    sent within `patience_s` is refused. A request that has blocked the process sends its own
    statement at once, unless another one is running.

    If the server refuses a set, nothing of it was committed, and each question gets a statement of
    its own. If the server is unavailable, or the outcome is unknown, every request of the set gets
    that error: a repetition could have an effect twice.
    """

    def __init__(
        self,
        single: Callable[[Q], R],
        several: Callable[[Sequence[Q]], Sequence[R]],
        subject: Callable[[Q], Hashable],
        patience_s: float,
    ) -> None:
        self._single, self._several, self._subject = single, several, subject
        self._patience_s = patience_s
        self._waiting: list[_Member[Q, R]] = []
        self._answered: list[_Member[Q, R]] = []
        self._statements: greenlet | None = None  # runs the statements; None: there are none

    def ask(self, question: Q) -> R:
        """Return the answer.

        Raises what `single` raises, and DatabaseUnavailable if too many requests wait or this one
        has waited too long.
        """
        request = getcurrent()
        if not isinstance(request, _Request):  # another thread: it may block
            return self._single(question)
        if request.has_blocked and self._statements is None:
            return self._single(question)
        if len(self._waiting) >= MAX_WAITING:
            raise DatabaseUnavailable("too many orders wait for PostgreSQL", retry_after_s=1)
        member: _Member[Q, R] = _Member(question, request)
        self._waiting.append(member)
        if self._statements is None:
            self._statements = greenlet(self._run, request.parent)  # the server's loop
            # After the requests that are there already: they belong to the same set.
            server.schedule_call(0, self._proceed)
        request.parent.switch(server.LATER)
        if member.error is not None:
            raise member.error
        return member.answer

    def _proceed(self, *timed_out: bool) -> None:
        """Run statements until one waits for its answer, then resume the requests with answers.

        The server's loop calls this. PostgreSQL works on the next set while the requests of the
        last one are finished.
        """
        try:
            if self._statements is not None:
                self._statements.switch(*timed_out)
        finally:
            self._resume_answered()

    def _resume_answered(self) -> None:
        answered, self._answered = self._answered, []
        now_s = time.monotonic()
        WAITING_SECONDS.inc(sum(now_s - member.since_s for member in answered))
        for member in answered:
            try:
                server.resume(member.request.client, member.request.switch)
            except Exception:  # noqa: BLE001 the others must be answered
                _log.exception("request.not_resumed")

    def _run(self) -> None:
        waiting.set(self._wait)
        try:
            while members := self._next_set():
                self._answer(members)
        finally:
            self._statements = None

    def _wait(self, descriptor: int, timeout_s: float) -> bool:
        until_s = time.monotonic() + timeout_s
        while (remaining_s := until_s - time.monotonic()) > 0:
            try:
                server.watch(descriptor, _OVERDUE_CHECK_S, self._proceed)
            except (OSError, ValueError):  # a bug: this statement holds up the process
                _log.exception("descriptor.not_watched")
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                return bool(poll.poll(remaining_s * 1000))
            timed_out: bool = getcurrent().parent.switch()
            if not timed_out:
                return True
            self._refuse_overdue()
        return False

    def _refuse_overdue(self) -> None:
        """Refuse requests that waited too long. Nothing was sent for them."""
        since_s = time.monotonic() - self._patience_s
        overdue = [member for member in self._waiting if member.since_s < since_s]
        if overdue:
            self._waiting = [member for member in self._waiting if member.since_s >= since_s]
            self._fail(
                overdue,
                DatabaseUnavailable("the order waited too long for its turn", retry_after_s=1),
            )

    def _next_set(self) -> list[_Member[Q, R]]:
        self._refuse_overdue()
        members: list[_Member[Q, R]] = []
        postponed: list[_Member[Q, R]] = []
        subjects: set[Hashable] = set()
        for member in self._waiting:
            subject = self._subject(member.question)
            if subject in subjects or len(members) == MAX_SET_SIZE:
                postponed.append(member)
                continue
            if subject is not None:
                subjects.add(subject)
            members.append(member)
        self._waiting = postponed
        return members

    def _answer(self, members: Sequence[_Member[Q, R]]) -> None:
        if len(members) == 1:
            self._ask_single(members[0])
            return
        try:
            answers = self._several([member.question for member in members])
            for member, answer in zip(members, answers, strict=True):
                member.answer = answer
            self._answered += members
        except ServerAway as error:
            self._fail(members, error)
        except OrdersError as error:
            _log.warning("set.fell_apart", error=str(error), orders=len(members))
            self._ask_singly(members)
        except Exception as error:  # noqa: BLE001 a bug: the outcome is unknown
            self._fail(members, error)

    def _ask_singly(self, members: Sequence[_Member[Q, R]]) -> None:
        """Run a statement for each, those without a subject first: no lock delays them.

        Each is answered at once. The members that remain after `_SINGLES_S` join the next set.
        """
        until_s = time.monotonic() + _SINGLES_S
        unasked = sorted(members, key=lambda member: self._subject(member.question) is not None)
        while unasked and time.monotonic() < until_s:
            self._ask_single(unasked.pop(0))
        self._waiting[:0] = unasked

    def _ask_single(self, member: _Member[Q, R]) -> None:
        try:
            member.answer = self._single(member.question)
        except Exception as error:  # noqa: BLE001 the request raises it
            member.error = error
        self._answered.append(member)

    def _fail(self, members: Sequence[_Member[Q, R]], error: Exception) -> None:
        for member in members:
            member.error = error
        self._answered += members
