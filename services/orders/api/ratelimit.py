"""The rate limit: all policies that count a request, in one round trip at most.

A request passes if each of them lets it pass, and only then it counts. The limit per principal is
the first policy; `ORDERS_RATE_LIMIT_POLICIES` names further ones.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from orders.api.ratelimit_batches import Reporter
from orders.api.ratelimit_counter import Counter, Verdict
from orders.api.ratelimit_storage import Count
from orders.cache.client import Command, Redis, RedisDown, RedisRefused, Reply
from orders.limit_policies import DEFAULT, Policy
from orders.settings import RateLimitSettings


class Asked(msgspec.Struct, frozen=True):
    """What further policies look at: what is asked for, by whom, from where.

    `claims` are those of the token that policies name.
    """

    address: str
    claims: Mapping[str, str]
    scope: str | None
    action: str | None


class Decision(msgspec.Struct, frozen=True):
    """Whether a request may pass: what each policy says, or those that refuse it alone."""

    verdicts: tuple[Verdict, ...]

    @property
    def allowed(self) -> bool:
        """Whether it may pass."""
        return self.verdicts[0].allowed

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


_Entry = tuple[Counter, str]  # a policy's counter, and the key of whom it counts


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
        self._headers = {one.name: one.header for one in counters}
        batches = [one.windows.batches for one in counters if one.windows.batches]
        self._reporter = Reporter(batches, wake or threading.Event())

    @property
    def has_further(self) -> bool:
        """Whether `decide` has to know what is asked for."""
        return bool(self._further)

    def start(self) -> None:
        """Start to report what is counted in batches; call it after fork."""
        self._reporter.start()

    def close(self) -> None:
        """Report what is left."""
        self._reporter.close()

    def decide(
        self, principal: str, *also: Command, asked: Asked | None = None
    ) -> tuple[Decision, list[Reply] | None]:
        """Count a request if all policies let it pass. One round trip at most, often none.

        Other commands are sent in the same round trip: with some there always is one.
        The replies are None when Redis was not asked: do without, or ask again where it matters.
        """
        if asked is None:
            return self._decide_alone(self._default, self._default.key(principal), also)
        entries = self._entries(principal, asked)
        refusals = [refusal for counter, key in entries if (refusal := counter.refusal(key))]
        if refusals:
            return Decision(tuple(refusals)), None
        ask = bool(also) or self._redis.gate.closed  # without Redis nothing may pass its stand-in
        counts = [(counter, counter.begin(key, ask=ask)) for counter, key in entries]
        try:
            replies = self._ask(counts, also)
        except RedisDown as error:
            _undo(counts, error)
            return self._decide_here(entries), None
        return self._decision(counts), replies

    def _decide_alone(
        self, counter: Counter, key: str, also: Sequence[Command]
    ) -> tuple[Decision, list[Reply] | None]:
        """Decide by one policy: all that a request costs where no further ones are set."""
        if refusal := counter.refusal(key):
            return Decision((refusal,)), None
        count = counter.begin(key, ask=bool(also) or self._redis.gate.closed)
        replies: list[Reply] = []
        if count.command is not None:
            began_s = self._clock()
            try:
                reply, *replies = self._redis.run(count.command, *also)
            except RedisDown as error:
                _undo([(counter, count)], error)
                return Decision((counter.count_here(key),)), None
            counter.settle(count, reply, began_s)
        return Decision((counter.verdict(count),)), replies

    def headers(self, decision: Decision) -> list[tuple[str, str]]:
        """Return the header fields that every answer under the limit carries."""
        policies, left = "", ""
        for verdict in decision.verdicts:
            comma = ", " if left else ""
            policies += comma + self._headers[verdict.policy]
            left += f'{comma}"{verdict.policy}";r={verdict.remaining};t={verdict.reset_s}'
        fields = [("RateLimit-Policy", policies), ("RateLimit", left)]
        if not decision.allowed:
            fields.append(("Retry-After", str(decision.retry_after_s)))
        return fields

    def _entries(self, principal: str, asked: Asked) -> list[_Entry]:
        entries = [(self._default, self._default.key(principal))]
        for policy, counter in self._further:
            if policy.counts(asked.scope, asked.action):
                whom = _counted(policy, principal, asked)
                if whom is not None:
                    entries.append((counter, counter.key(whom)))
        return entries

    def _ask(
        self, counts: Sequence[tuple[Counter, Count]], also: Sequence[Command]
    ) -> list[Reply] | None:
        """Ask Redis for what cannot be decided here; return the replies to `also`, in order."""
        asking = [(counter, count) for counter, count in counts if count.command]
        if not asking and not also:
            return []
        commands = [count.command for _, count in asking if count.command]
        began_s = self._clock()
        replies = self._redis.run(*commands, *also)
        for (counter, count), reply in zip(asking, replies, strict=False):
            counter.settle(count, reply, began_s)
        return replies[len(commands) :]

    def _decision(self, counts: Sequence[tuple[Counter, Count]]) -> Decision:
        refusing = [(counter, count) for counter, count in counts if not count.allowed]
        if refusing and len(refusing) < len(counts):
            self._give_back([(counter, count) for counter, count in counts if count.allowed])
        return Decision(tuple([counter.verdict(count) for counter, count in refusing or counts]))

    def _give_back(self, counts: Sequence[tuple[Counter, Count]]) -> None:
        """Take back what was counted for a request that another policy refuses.

        Behind the request where there are batches. Else in a round trip of its own: a refusal that
        is remembered here costs none.
        """
        commands = [counter.give_back(count) for counter, count in counts]
        due = [command for command in commands if command]
        if due:
            with contextlib.suppress(RedisDown):
                self._redis.run(*due)

    def _decide_here(self, entries: Sequence[_Entry]) -> Decision:
        refusing = [entry for entry in entries if not entry[0].passes_here(entry[1])]
        if refusing:
            return Decision(tuple(counter.refuse_here(key) for counter, key in refusing))
        verdicts = [counter.count_here(key) for counter, key in entries]
        refused = [verdict for verdict in verdicts if not verdict.allowed]  # by another thread
        return Decision(tuple(refused or verdicts))


def _undo(counts: Sequence[tuple[Counter, Count]], error: RedisDown) -> None:
    """Leave what is owed as it was before the request: it is decided here.

    What a server counted that refused other commands of the round trip is not owed any more.
    """
    replies = iter(error.replies if isinstance(error, RedisRefused) else ())
    for counter, count in counts:
        reply = next(replies, None) if count.command else None
        if reply:
            counter.windows.settle(count, reply)
        elif count.command:
            counter.windows.put_back(count)
        else:
            counter.give_back(count)


def _counted(policy: Policy, principal: str, asked: Asked) -> str | None:
    """Return whom a policy counts a request for; None for a token without the claim."""
    if policy.per == "tenant":
        return asked.claims.get(policy.claim or "")
    return asked.address if policy.per == "address" else principal
