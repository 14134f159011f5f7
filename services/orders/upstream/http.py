"""A resilient client of one upstream: deadline, retries, circuit breaker, bulkhead.

Every call is idempotent by an id in its path, so that any of them may be repeated.
"""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec
import pybreaker
import structlog
from opentelemetry.trace import Span

from orders import verified
from orders.errors import Permanent, Transient, Unavailable
from orders.telemetry import tracing
from orders.telemetry.context import outgoing_headers
from orders.telemetry.metrics import CIRCUIT_BREAKER_STATE, UPSTREAM_DURATION, exemplar
from orders.upstream.addresses import AllowedAddresses
from orders.upstream.credential import ANONYMOUS, Credential
from orders.upstream.policy import UpstreamPolicy
from orders.upstream.transport import (
    Call,
    CallOutcome,
    HttpRequest,
    HttpResponse,
    Transport,
    TryFailed,
    UpstreamConnection,
)

# The error codes of the contracts of Inventory and Payment. A 4xx without one comes from a
# proxy, a gateway or a wrong route, and says nothing about the order.
CODES: Final = frozenset(
    {
        "invalid",
        "invalid_cursor",
        "too_large",
        "conflict",
        "out_of_stock",
        "unknown_reservation",
        "not_committed",
        "already_committed",
        "already_released",
        "already_returned",
        "unknown_attempt",
        "unknown_capture",
        "not_captured",
        "exceeds_capture",
    }
)
T = TypeVar("T")

_RETRIED: Final = frozenset(
    {
        CallOutcome.TIMEOUT,
        CallOutcome.CONNECTION_ERROR,
        CallOutcome.SERVER_ERROR,
        CallOutcome.THROTTLED,
    }
)
# A healthy upstream sends 429, and our full bulkhead says nothing about the upstream, so neither
# counts. A wrong route or credential counts like any outage.
_BREAKING: Final = frozenset(
    {
        CallOutcome.TIMEOUT,
        CallOutcome.CONNECTION_ERROR,
        CallOutcome.SERVER_ERROR,
        CallOutcome.INVALID_ANSWER,
        CallOutcome.DENIED,
        CallOutcome.ADDRESS_REFUSED,
    }
)
# Any other call to this upstream would fail in the same way now.
_PAUSING: Final = frozenset({CallOutcome.CIRCUIT_OPEN, CallOutcome.THROTTLED})
_MIN_TRY_S: Final = 0.001  # a sleep may end a little late; the timeout must stay above 0
_HEADERS: Final = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": "orders",
}
_GAUGE: Final = {pybreaker.STATE_CLOSED: 0, pybreaker.STATE_HALF_OPEN: 1, pybreaker.STATE_OPEN: 2}
_log = structlog.get_logger()


class _Problem(msgspec.Struct):
    error: str = ""


def error_code(reply: HttpResponse) -> str:
    """Return the machine-readable code of a 4xx answer; empty if it has none."""
    try:
        return msgspec.json.decode(reply.body, type=_Problem).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def has_code(reply: HttpResponse) -> bool:
    """Return whether a 4xx answer is one of the contract."""
    return error_code(reply) in CODES


class Upstream:
    """A client of one upstream under its policy. Create it after fork; any thread may use it.

    `name` is the label of its metrics. `definite` returns whether a 4xx is the upstream's answer to
    the request; any other 4xx comes from a proxy or a gateway. `addresses` are those that the
    upstream may have; None: any. `credential` identifies us. `clock`, `sleep` and `jitter` (0 to 1)
    are for tests.
    """

    def __init__(  # noqa: PLR0913 the last ones are for tests
        self,
        name: str,
        url: str,
        policy: UpstreamPolicy,
        *,
        definite: Callable[[HttpResponse], bool] = has_code,
        addresses: AllowedAddresses | None = None,
        credential: Credential = ANONYMOUS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name, self.policy, self._definite = name, policy, definite
        self._token = credential.token
        self._clock, self._sleep, self._jitter = clock, sleep, jitter
        self._permits = threading.BoundedSemaphore(policy.concurrency)
        self._breaker = Breaker(name, policy.breaker_failures, policy.breaker_reset_s, clock)
        self._transport = Transport(
            url, policy.concurrency, policy.response_limit_bytes, addresses, credential.certificate
        )
        address = urlsplit(url)
        self._address: dict[str, str | int] = {"server.address": address.hostname or ""}
        if address.port is not None:
            self._address["server.port"] = address.port

    @property
    def breaker_state(self) -> str:
        """State of the circuit breaker: `closed`, `half-open` or `open`."""
        return self._breaker.state

    def close(self) -> None:
        """Close the idle connections to the upstream."""
        self._transport.close()

    def call(self, request: HttpRequest, read: Callable[[HttpResponse], T]) -> T:
        """Send a request until a usable answer comes, and return the result of `read`.

        `read` gets 2xx and definite 4xx answers. It raises InvalidAnswer for an answer that it
        cannot understand, and Permanent for a definite refusal. `call` raises Unavailable if no
        reliable answer came in time (NotAsked: nothing was sent), Transient if this process is too
        busy to ask, and Permanent.
        """
        started_s = self._clock()
        outcome = CallOutcome.REFUSED  # if `read` raises
        try:
            result = self._call(Call(request, read), started_s + self.policy.deadline_s)
            outcome = CallOutcome.SUCCESS
        except _GaveUp as error:
            outcome = error.outcome
            raise _unavailable(self.name, error) from error.__cause__
        else:
            return result
        finally:
            self.observe(outcome, self._clock() - started_s)

    def observe(self, outcome: CallOutcome, took_s: float) -> None:
        """Count a call that ended."""
        UPSTREAM_DURATION.labels(self.name, outcome).observe(took_s, exemplar())

    def _call(self, call: Call[T], deadline_s: float) -> T:
        tries = 0
        while True:
            tries += 1
            left_s = max(deadline_s - self._clock(), _MIN_TRY_S)
            timeout_s = min(self.policy.try_timeout_s, left_s)
            try:
                return self._guarded_try(call, timeout_s, tries)
            except TryFailed as error:
                wait_s = self.again_in_s(call.request, error, tries, deadline_s)
                if wait_s is None:
                    raise _GaveUp(self.name, call.request, tries, error) from error
            self._sleep(wait_s)

    def again_in_s(
        self, request: HttpRequest, error: TryFailed, tries: int, deadline_s: float
    ) -> float | None:
        """Return the seconds to wait before the next try; None if there is no further try."""
        wait_s = self._wait_s(error, tries, deadline_s)
        if wait_s is not None:
            _log.warning(
                "upstream.retried",
                upstream=self.name,
                request=f"{request.method} {request.template}",
                tries=tries,
                failure=str(error),
                wait_s=round(wait_s, 3),
            )
        return wait_s

    def _wait_s(self, error: TryFailed, tries: int, deadline_s: float) -> float | None:
        if error.outcome not in _RETRIED or tries > self.policy.retries:
            return None
        if self._breaker.state == pybreaker.STATE_OPEN:
            return None
        wait_s = error.retry_after_s
        if wait_s is None:
            wait_s = self.policy.backoff_base_s * 2**tries
        wait_s += self._jitter() * self.policy.backoff_jitter_s
        return wait_s if self._clock() + wait_s < deadline_s else None

    def _guarded_try(self, call: Call[T], timeout_s: float, tries: int) -> T:
        admission = self.admit()
        failed = True
        try:
            reply = self._exchange(call.request, timeout_s, tries)
            result = self.understand(reply, call)
            failed = False
        except Permanent:
            failed = False
            raise
        except TryFailed as error:
            failed = breaks(error)
            raise
        else:
            return result
        finally:
            self.leave(admission, failed=failed)

    def admit(self) -> object:
        """Take a place in the bulkhead for a try; return the admission that `leave` needs.

        Call `release` when the try has really ended. Raises TryFailed.
        """
        # The bulkhead first: a full one must not use up the probe of the breaker.
        if not self._permits.acquire(blocking=False):
            raise TryFailed(CallOutcome.BULKHEAD_FULL, f"{self.policy.concurrency} in flight")
        try:
            return self._breaker.enter()
        except CircuitOpen as error:
            self._permits.release()
            raise TryFailed(CallOutcome.CIRCUIT_OPEN, retry_after_s=error.retry_after_s) from error

    def leave(self, admission: object, *, failed: bool) -> None:
        """Report to the breaker how an admitted try ended."""
        self._breaker.leave(admission, failed=failed)

    def give_back(self, admission: object) -> None:
        """End a try whose result says nothing about the upstream; the breaker does not count it."""
        self._breaker.give_back(admission)

    def release(self) -> None:
        """Give back the place of a try in the bulkhead."""
        self._permits.release()

    def understand(self, reply: HttpResponse, call: Call[T]) -> T:
        """Return the result of `read`. Raises TryFailed, and Permanent for a definite refusal."""
        _check_status(reply, self._definite)
        try:
            return call.read(reply)
        except InvalidAnswer as error:
            raise TryFailed(CallOutcome.INVALID_ANSWER, str(error)) from error

    def final_error(self, request: HttpRequest, tries: int, error: TryFailed) -> Transient:
        """Return the error to raise after the last try."""
        return _unavailable(self.name, _GaveUp(self.name, request, tries, error))

    def connect(self) -> "Future[UpstreamConnection]":
        """Begin to open a connection that only the caller uses; TryFailed when it fails."""
        return self._transport.connect(self.policy.try_timeout_s)

    def span(self, request: HttpRequest, tries: int) -> AbstractContextManager[Span | None]:
        """Return the span of a try."""
        attributes = {
            **self._address,
            "http.request.method": request.method,
            "http.request.resend_count": tries - 1,
            "url.template": request.template,
        }
        return tracing.span(f"{request.method} {request.template}", attributes, tracing.CLIENT)

    def fields(self, request: HttpRequest) -> dict[str, str]:
        """Return the header fields of a request, including the correlation and trace ids."""
        all_fields = {**_HEADERS, **request.headers, **outgoing_headers()}
        return all_fields if self._token is None else {**all_fields, **self._token.fields}

    def _exchange(self, request: HttpRequest, timeout_s: float, tries: int) -> HttpResponse:
        with self.span(request, tries) as span:
            headers = self.fields(request)  # inside the span, which is the parent of the upstream's
            try:
                reply = self._transport.send(request, headers, timeout_s, self.release)
            except TryFailed as error:
                tracing.fail(span, error.outcome)
                raise
            if span is not None:
                span.set_attribute("http.response.status_code", reply.status)
            return reply


class CircuitOpen(Exception):
    """Do not call: the upstream failed too often. Ask again after `retry_after_s`."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("circuit breaker is open")
        self.retry_after_s = retry_after_s


class Breaker:
    """Guards the calls to one upstream: `enter` before each call, `leave` after it in all cases.

    Any thread may use it. pybreaker counts failures and keeps the state; this class decides when to
    ask it. pybreaker's own `call` holds a lock during the guarded call, so all calls to an upstream
    would run one after another.
    """

    def __init__(
        self, upstream: str, failures: int, reset_s: float, clock: Callable[[], float]
    ) -> None:
        self._reset_s, self._clock = reset_s, clock
        self._lock = threading.Lock()
        self._opened_at_s = 0.0
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=failures,
            reset_timeout=reset_s,
            name=upstream,
            listeners=[_Watch()],
            throw_new_error_on_trip=False,
        )
        CIRCUIT_BREAKER_STATE.labels(upstream).set(_GAUGE[self.state])

    @property
    def state(self) -> str:
        """One of pybreaker's STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN."""
        return self._breaker.current_state

    def enter(self) -> object:
        """Return the admission that `leave` needs.

        Once the reset time is over, the first caller is the probe. Others are refused until the
        probe has left. Raises CircuitOpen.
        """
        with self._lock:
            if self.state == pybreaker.STATE_OPEN:
                wait_s = self._opened_at_s + self._reset_s - self._clock()
                if wait_s > 0:
                    raise CircuitOpen(wait_s)
                self._breaker.half_open()
            elif self.state == pybreaker.STATE_HALF_OPEN:
                raise CircuitOpen(1.0)  # a guess: the probe in flight decides within one try
            return self._breaker.state

    def leave(self, admission: object, *, failed: bool) -> None:
        """Count how a call ended, unless the breaker's state has changed since its admission.

        A late failure must not open the breaker again, and a late success must not close it.
        """
        with self._lock:
            if self._breaker.state is not admission:
                return
            try:
                self._breaker.call(_outcome, failed)
            except _FailedCall:
                if self.state == pybreaker.STATE_OPEN:
                    self._opened_at_s = self._clock()

    def give_back(self, admission: object) -> None:
        """End a call without a result for the breaker. If it was a probe, the next call probes."""
        with self._lock:
            probe = self.state == pybreaker.STATE_HALF_OPEN
            if probe and self._breaker.state is admission:
                self._breaker.open()
                self._opened_at_s = self._clock() - self._reset_s


class _FailedCall(Exception):
    """Makes pybreaker count a failure."""


def _outcome(failed: bool) -> None:  # noqa: FBT001 pybreaker passes it on
    if failed:
        raise _FailedCall


class _Watch(pybreaker.CircuitBreakerListener):
    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        CIRCUIT_BREAKER_STATE.labels(cb.name).set(_GAUGE[new_state.name])
        _log.warning(
            "circuit_breaker.changed",
            upstream=cb.name,
            before=old_state.name if old_state else None,
            now=new_state.name,
            failures=cb.fail_counter,
        )


def breaks(error: TryFailed) -> bool:
    """Return whether a failure counts against the upstream."""
    return error.outcome in _BREAKING


class InvalidAnswer(Exception):
    """Ask again later: the answer does not follow the contract."""


class _GaveUp(Exception):
    """The call ends here: no further try is made."""

    def __init__(self, upstream: str, request: HttpRequest, tries: int, error: TryFailed) -> None:
        call = f"{upstream}: {request.method} {request.template}"
        super().__init__(f"{call} failed after {tries} {'tries' if tries > 1 else 'try'}: {error}")
        self.outcome, self.retry_after_s = error.outcome, error.retry_after_s


class NotAsked(Unavailable):
    """Ask later: the circuit breaker is open, and nothing was sent."""


def _unavailable(upstream: str, error: _GaveUp) -> Transient:
    if error.outcome is CallOutcome.BULKHEAD_FULL:
        return Transient(str(error), retry_after_s=error.retry_after_s)
    kind = NotAsked if error.outcome is CallOutcome.CIRCUIT_OPEN else Unavailable
    return kind(
        str(error),
        dependency=upstream,
        pause=error.outcome in _PAUSING,
        retry_after_s=error.retry_after_s,
    )


def _check_status(reply: HttpResponse, definite: Callable[[HttpResponse], bool]) -> None:
    """Raise TryFailed unless the status is 2xx or a definite 4xx."""
    status = reply.status
    if 200 <= status < 300:
        return
    outcome, detail = _STATUSES.get(status, CallOutcome.SERVER_ERROR), f"status {status}"
    if status < 400:  # following a redirect would send the order's data elsewhere
        outcome = CallOutcome.INVALID_ANSWER
        detail += ": redirects are not followed"
    elif status < 500 and status not in _STATUSES:
        if definite(reply):
            return
        outcome = CallOutcome.DENIED
        if (advice := verified.advice_of_nginx(reply.body)) is not None:
            detail = f"{detail}: {advice}"
    raise TryFailed(outcome, detail, retry_after_s=reply.retry_after_s)


# These concern our credential or route, not the order, even if they carry an error code.
_ACCESS: Final = (401, 403, 405, 407, 421, 423, 425)
_STATUSES: Final = {
    408: CallOutcome.TIMEOUT,
    429: CallOutcome.THROTTLED,
    **dict.fromkeys(_ACCESS, CallOutcome.DENIED),
}


def decode(reply: HttpResponse, kind: type[T]) -> T:
    """Decode a 2xx answer. Raises InvalidAnswer, and Permanent for any 4xx."""
    if reply.status >= 400:
        raise refusal(reply)
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidAnswer(f"status {reply.status}, {error}") from error


def refusal(reply: HttpResponse) -> Permanent:
    """Return the error for a definite refusal that the contract does not describe."""
    code = error_code(reply)
    shown_code = code if code.isascii() and code.isidentifier() and len(code) <= 40 else "no code"
    reason = "upstream_conflict" if reply.status == 409 else "upstream_refused"
    return Permanent(f"upstream refused: status {reply.status}, {shown_code}", reason=reason)
