"""One statement for what several threads ask at the same time.

Whoever asks while no statement runs is answered at once, by a statement of its own: a lone caller
waits for nobody. Whoever asks meanwhile waits for the next statement, which is for all who wait
then; but not for long: a statement may wait for a lock that is no matter to others.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

import structlog

from orders.database.failures import ServerAway
from orders.errors import OrdersError

A = TypeVar("A")
R = TypeVar("R")

# Statements take milliseconds. One that takes longer waits for a lock, or the server is in trouble.
PATIENCE_S: Final = 0.1
_log = structlog.get_logger()


class _Request(Generic[A, R]):
    """A request of a thread. It waits at the gate until it is answered, or is to ask for others."""

    __slots__ = ("answers", "error", "gate", "part", "question")

    def __init__(self, question: A) -> None:
        self.question = question
        self.answers: list[R] = []  # one, or none: then the thread asks by itself
        self.error: ServerAway | None = None
        self.part: list[_Request[A, R]] = []  # for whom this thread asks, itself included
        self.gate = threading.Lock()
        self.gate.acquire()


class SharedStatement(Generic[A, R]):
    """Asks for many at once what each would ask for itself; any number of threads may use it.

    `several` returns the answers that it has, by the place of the asker. Who has none, and
    everybody when it fails, asks by itself with `single`: what cannot be answered, or waits for a
    lock, holds up nobody else. So does who has waited for a statement of others for `patience_s`.
    """

    def __init__(
        self,
        single: Callable[[A], R],
        several: Callable[[Sequence[A]], Mapping[int, R]],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._single, self._several, self._patience_s = single, several, patience_s
        self._lock = threading.Lock()  # guards the next two
        self._running = False
        self._waiting: list[_Request[A, R]] = []

    def ask(self, question: A) -> R:
        """Return the answer. Raises what `single` raises."""
        request: _Request[A, R] = _Request(question)
        part = self._turn(request)
        if len(part) == 1:
            try:
                return self._single(question)
            finally:
                self._pass_on()
        if part:
            self._answer(part)
        if request.error is not None:
            raise request.error
        return request.answers[0] if request.answers else self._single(question)

    def _turn(self, request: _Request[A, R]) -> list[_Request[A, R]]:
        """Wait; return the requests that the caller has to send.

        Nobody if it was asked for already, or has waited enough.
        """
        with self._lock:
            if not self._running:
                self._running = True
                return [request]
            self._waiting.append(request)
        if not request.gate.acquire(timeout=self._patience_s) and not self._left(request):
            request.gate.acquire()
        part, request.part = request.part, []
        return part

    def _left(self, request: _Request[A, R]) -> bool:
        """Withdraw the request; false if another thread already sends it."""
        with self._lock:
            if request not in self._waiting:
                return False
            self._waiting.remove(request)
            return True

    def _answer(self, part: list[_Request[A, R]]) -> None:
        try:
            answers = self._several([request.question for request in part])
            for place, answer in answers.items():
                part[place].answers.append(answer)
        except ServerAway as error:  # nobody would be answered
            for request in part:
                request.error = error
        except Exception as error:  # noqa: BLE001 each finds by itself what is wrong
            if isinstance(error, OrdersError):
                _log.warning("set.fell_apart", error=str(error))
            else:
                _log.exception("set.fell_apart")
        finally:
            self._pass_on()
            for request in part[1:]:
                request.gate.release()

    def _pass_on(self) -> None:
        """Let the first waiting thread send all waiting requests."""
        with self._lock:
            part, self._waiting = self._waiting, []
            self._running = bool(part)
        if part:
            part[0].part = part
            part[0].gate.release()
