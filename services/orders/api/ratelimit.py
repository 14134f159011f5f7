"""The rate limit: all policies that count a request, in one round trip at most.

A request passes if each of them lets it pass, and only then it counts. The limit per principal is
the first policy; `ORDERS_RATE_LIMIT_POLICIES` names further ones.

A principal that was refused is remembered here until it could pass again: someone who hammers the
API costs no Redis call. Refused requests do not count, so that time is known exactly.
"""

import contextlib
import functools
import hashlib
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from orders.api.ratelimit_windows import (
    PendingCount,
    RedisWindows,
    Reporter,
    Window,
    wait_ms,
    weighted,
)
from orders.cache.client import Command, Redis, RedisDown, RedisRefused, Reply
from orders.limit_policies import DEFAULT, Policy
from orders.settings import RateLimitSettings
from orders.telemetry.metrics import RATELIMIT_DECISIONS, Tally

_MAX_REFUSALS: Final = 10_000
_KEYS: Final = 4_000  # ~1 MB for each policy


class LimitDecision(msgspec.Struct, frozen=True):
    """A policy's decision on a request, and its fields in the answer.

    `reset_s`: until the quota grows again. `retry_after_s`: at least 1 when refused, else 0.
    """

    policy: str
    allowed: bool
    limit: int
    remaining: int
    reset_s: int
    retry_after_s: int


class Counter:
    """A policy's quota, counted in Redis, and in the process while Redis is unavailable.

    Threads may share it.
    """

    def __init__(
        self,
        name: str,
        amounts: tuple[int, int],
        redis: Redis,
        *,
        wake: threading.Event | None,
        clock: Callable[[], float],
    ) -> None:
        """Take the requests of a window and its seconds; with `wake` they count in batches."""
        requests, self._window_s = amounts
        self.name = name
        self._item = RateLimitItemPerSecond(requests, self._window_s, name)
        # Only the principal's part of a key changes.
        self._key_parts = self._item.key_for("\0").split("\0")
        # Where a principal is counted. Kept, because a digest is a fifth of a decision's cost.
        self.key = functools.lru_cache(maxsize=_KEYS)(self._key)
        self._window_ms = self._window_s * 1000
        self.windows = RedisWindows(redis, requests, self._window_s, wake)
        self._local = SlidingWindowCounterRateLimiter(MemoryStorage())
        # The storage makes a timer and starts it: two threads at once would start one timer twice.
        self._local_lock = threading.Lock()
        self._clock, self._refusals = clock, _RefusalCache(clock)
        self.header = f'"{name}";q={requests};w={self._window_s}'
        self._decided = {
            decision: Tally(RATELIMIT_DECISIONS.labels(name, decision))
            for decision in ("allowed", "refused", "fallback_allowed", "fallback_refused")
        }

    def _key(self, principal: str) -> str:
        digest = hashlib.blake2b(principal.encode(), digest_size=16).hexdigest()
        return digest.join(self._key_parts)

    def refusal(self, key: str) -> LimitDecision | None:
        """Return the refusal of a client that cannot pass yet."""
        until = self._refusals.until.get(key)
        if until is None or (wait_s := until - self._clock()) <= 0:
            return None
        return self._counted_refusal("refused", wait_s)

    def record_reply(self, count: PendingCount, reply: Reply, began_s: float) -> None:
        """Note what Redis answered to a question of `began_s`."""
        self.windows.record_reply(count, reply)
        if not count.allowed:
            self._refusals.add(count.key, began_s + self._wait_ms(count.window) / 1000)

    def verdict(self, count: PendingCount) -> LimitDecision:
        """Return what became of a request that was counted, or refused."""
        if count.allowed:
            self._decided["allowed"].inc()
            return self._allowance(count.window)
        return self._counted_refusal("refused", self._wait_ms(count.window) / 1000)

    def passes_here(self, key: str) -> bool:
        """Whether this process alone would let a request pass."""
        return self._local.test(self._item, key)

    def count_here(self, key: str) -> LimitDecision:
        """Count a request in this process alone."""
        with self._local_lock:
            allowed = self._local.hit(self._item, key)
        if allowed:
            self._decided["fallback_allowed"].inc()
            return self._allowance(self._window_here(key))
        return self.refuse_here(key)

    def refuse_here(self, key: str) -> LimitDecision:
        """Return the refusal of a client over the limit in this process alone."""
        wait_s = self._wait_ms(self._window_here(key)) / 1000
        return self._counted_refusal("fallback_refused", wait_s)

    def _window_here(self, key: str) -> Window:
        storage: MemoryStorage = self._local.storage  # type: ignore[assignment]
        previous, _, current, ends_s = storage.get_sliding_window(
            self._item.key_for(key), self._item.get_expiry()
        )
        return Window(previous, current, round(ends_s * 1000) - self._window_ms)

    def _allowance(self, window: Window) -> LimitDecision:
        limit = self._item.amount
        remaining = max(0, limit - weighted(window, self._window_ms))
        until_ms = window.left_ms if remaining else self._wait_ms(window)
        return LimitDecision(self.name, True, limit, remaining, self._seconds(until_ms / 1000), 0)

    def _counted_refusal(self, decision: str, wait_s: float) -> LimitDecision:
        self._decided[decision].inc()
        seconds = self._seconds(wait_s)
        return LimitDecision(self.name, False, self._item.amount, 0, seconds, seconds)

    def _seconds(self, wait_s: float) -> int:
        """Round up; a wait can be a millisecond longer than the window, which is not worth 1 s."""
        return min(max(1, math.ceil(wait_s)), self._window_s)

    def _wait_ms(self, window: Window) -> int:
        return wait_ms(window, self._item.amount, self._window_ms)


class _RefusalCache:
    """The principals that were refused, and how long each refusal holds; bounded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.until: dict[str, float] = {}  # when a principal may pass, by the clock
        self._lock = threading.Lock()

    def add(self, key: str, until: float) -> None:
        with self._lock:
            if len(self.until) >= _MAX_REFUSALS:
                self._make_room()
            self.until[key] = until

    def _make_room(self) -> None:
        now = self._clock()
        self.until = {key: until for key, until in self.until.items() if until > now}
        if len(self.until) >= _MAX_REFUSALS:
            self.until.clear()  # they cost a Redis call each again, nothing worse


class CountedRequest(msgspec.Struct, frozen=True):
    """The input of further policies: operation, caller and address.

    `claims` are those of the token that policies name.
    """

    address: str
    claims: Mapping[str, str]
    scope: str | None
    action: str | None


class Decision(msgspec.Struct, frozen=True):
    """Whether a request may pass, with the decisions of all policies, or only the refusals."""

    allowed: bool
    verdicts: tuple[LimitDecision, ...]

    @property
    def policies(self) -> list[str]:
        """The names of the policies."""
        return [verdict.policy for verdict in self.verdicts]

    @property
    def remaining(self) -> int:
        """Requests that are left of the smallest quota."""
        return min(verdict.remaining for verdict in self.verdicts)

    @property
    def reset_s(self) -> int:
        """Seconds until that quota grows again."""
        return min(self.verdicts, key=lambda verdict: verdict.remaining).reset_s

    @property
    def retry_after_s(self) -> int:
        """Seconds until no policy refuses; 0 when none does."""
        return max(verdict.retry_after_s for verdict in self.verdicts)


_KeyedCounter = tuple[Counter, str]  # a policy's counter, and the key under which it counts


class RateLimiter:
    """Decides on requests by sliding windows; never raises for Redis. Threads may share it."""

    def __init__(
        self,
        redis: Redis,
        settings: RateLimitSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        wake = threading.Event() if settings.mode == "batched" else None

        def counter(name: str, amounts: tuple[int, int]) -> Counter:
            return Counter(name, amounts, redis, wake=wake, clock=clock)

        self._redis, self._clock = redis, clock
        self._default = counter(DEFAULT, (settings.requests, settings.window_s))
        self._further: list[tuple[Policy, Counter]] = [
            (policy, counter(policy.name, policy.amounts())) for policy in settings.further
        ]
        counters = [self._default, *(further for _, further in self._further)]
        self._headers = {counter.name: counter.header for counter in counters}
        batches = [counter.windows.batches for counter in counters if counter.windows.batches]
        self._reporter = Reporter(batches, wake or threading.Event())
        self.has_further: Final = bool(self._further)  # whether `decide` needs the operation

    def start(self) -> None:
        """Start to report batches of counts; call it after fork."""
        self._reporter.start()

    def close(self) -> None:
        """Report the remaining counts."""
        self._reporter.close()

    def decide(
        self, principal: str, *also: Command, request: CountedRequest | None = None
    ) -> tuple[Decision, list[Reply] | None]:
        """Count a request if all policies let it pass. One round trip at most, often none.

        Other commands are sent in the same round trip: with some there always is one.
        The replies are None when Redis was not asked: do without, or ask again where it matters.
        """
        if request is None:
            return self._decide_alone(self._default, self._default.key(principal), also)
        counters = self._keyed_counters(principal, request)
        refusals = [refusal for counter, key in counters if (refusal := counter.refusal(key))]
        if refusals:
            return Decision(False, tuple(refusals)), None
        ask = bool(also) or self._redis.breaker.open  # without Redis nothing may pass its stand-in
        counts = [(counter, counter.windows.begin(key, ask=ask)) for counter, key in counters]
        try:
            replies = self._ask(counts, also)
        except RedisDown as error:
            _restore_unreported(counts, error)
            return self._decide_here(counters), None
        return self._decision(counts), replies

    def _decide_alone(
        self, counter: Counter, key: str, also: Sequence[Command]
    ) -> tuple[Decision, list[Reply] | None]:
        """Decide by one policy: all that a request costs where no further ones are set."""
        if refusal := counter.refusal(key):
            return Decision(False, (refusal,)), None
        count = counter.windows.begin(key, ask=bool(also) or self._redis.breaker.open)
        replies: list[Reply] = []
        if count.command is not None:
            began_s = self._clock()
            try:
                reply, *replies = self._redis.run(count.command, *also)
            except RedisDown as error:
                _restore_unreported([(counter, count)], error)
                verdict = counter.count_here(key)
                return Decision(verdict.allowed, (verdict,)), None
            counter.record_reply(count, reply, began_s)
        return Decision(count.allowed, (counter.verdict(count),)), replies

    def headers(self, decision: Decision) -> list[tuple[str, str]]:
        """Return the header fields that every answer under the limit carries."""
        policies, quotas = "", ""
        for verdict in decision.verdicts:
            comma = ", " if quotas else ""
            policies += comma + self._headers[verdict.policy]
            quotas += f'{comma}"{verdict.policy}";r={verdict.remaining};t={verdict.reset_s}'
        fields = [("RateLimit-Policy", policies), ("RateLimit", quotas)]
        if not decision.allowed:
            fields.append(("Retry-After", str(decision.retry_after_s)))
        return fields

    def _keyed_counters(self, principal: str, request: CountedRequest) -> list[_KeyedCounter]:
        counters = [(self._default, self._default.key(principal))]
        for policy, counter in self._further:
            if policy.counts(request.scope, request.action):
                identity = _identity(policy, principal, request)
                if identity is not None:
                    counters.append((counter, counter.key(identity)))
        return counters

    def _ask(
        self, counts: Sequence[tuple[Counter, PendingCount]], also: Sequence[Command]
    ) -> list[Reply] | None:
        """Ask Redis for what cannot be decided here; return the replies to `also`, in order."""
        asking = [(counter, count) for counter, count in counts if count.command]
        if not asking and not also:
            return []
        commands = [count.command for _, count in asking if count.command]
        began_s = self._clock()
        replies = self._redis.run(*commands, *also)
        for (counter, count), reply in zip(asking, replies, strict=False):
            counter.record_reply(count, reply, began_s)
        return replies[len(commands) :]

    def _decision(self, counts: Sequence[tuple[Counter, PendingCount]]) -> Decision:
        refusing = [(counter, count) for counter, count in counts if not count.allowed]
        if refusing and len(refusing) < len(counts):
            self._give_back([(counter, count) for counter, count in counts if count.allowed])
        verdicts = [counter.verdict(count) for counter, count in refusing or counts]
        return Decision(not refusing, tuple(verdicts))

    def _give_back(self, counts: Sequence[tuple[Counter, PendingCount]]) -> None:
        """Subtract the counts of a request that another policy refused.

        With batches, the next report does that. Else it takes a round trip of its own: a refusal
        that is remembered here costs none.
        """
        commands = [counter.windows.give_back(count) for counter, count in counts]
        due = [command for command in commands if command]
        if due:
            with contextlib.suppress(RedisDown):
                self._redis.run(*due)

    def _decide_here(self, counters: Sequence[_KeyedCounter]) -> Decision:
        refusing = [keyed for keyed in counters if not keyed[0].passes_here(keyed[1])]
        if refusing:
            refusals = [counter.refuse_here(key) for counter, key in refusing]
            return Decision(False, tuple(refusals))
        verdicts = [counter.count_here(key) for counter, key in counters]
        refused = [verdict for verdict in verdicts if not verdict.allowed]  # by another thread
        return Decision(not refused, tuple(refused or verdicts))


def _restore_unreported(counts: Sequence[tuple[Counter, PendingCount]], error: RedisDown) -> None:
    """Restore the unreported counts from before the request, because this process decides alone.

    Counts that a server did take are no longer unreported.
    """
    replies = iter(error.replies if isinstance(error, RedisRefused) else ())
    for counter, count in counts:
        reply = next(replies, None) if count.command else None
        if reply:
            counter.windows.record_reply(count, reply)
        elif count.command:
            counter.windows.put_back(count)
        else:
            counter.windows.give_back(count)


def _identity(policy: Policy, principal: str, request: CountedRequest) -> str | None:
    """Return the tenant, principal or address that a policy counts; None without the claim."""
    if policy.per == "tenant":
        return request.claims.get(policy.claim or "")
    return request.address if policy.per == "address" else principal
