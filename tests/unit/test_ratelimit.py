"""The rate limit without Redis: its arithmetic, its headers, its local stand-in."""

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from orders.api.ratelimit import RateLimiter
from orders.api.ratelimit_windows import Window, wait_ms, weighted
from orders.cache.client import Redis
from orders.settings import CacheSettings, RateLimitSettings


def limiter(requests: int = 100, window_s: int = 60) -> RateLimiter:
    return RateLimiter(
        Redis(CacheSettings()), RateLimitSettings(requests=requests, window_s=window_s)
    )


def passes(window: Window, limit: int, window_ms: int, after_ms: int) -> bool:
    """Decide as the script does: shift the window when it is over, then weigh."""
    left_ms = window.left_ms - after_ms
    if left_ms <= 0:
        window = Window(window.current, 0, left_ms + window_ms)
    else:
        window = Window(window.previous, window.current, left_ms)
    return window.left_ms <= 0 or weighted(window, window_ms) + 1 <= limit


@given(
    limit=st.integers(1, 50),
    previous=st.integers(0, 60),
    current=st.integers(0, 60),
    left_ms=st.integers(1, 1000),
)
def test_the_wait_is_exact_to_the_millisecond(
    limit: int, previous: int, current: int, left_ms: int
) -> None:
    window = Window(previous, current, left_ms)
    wait = wait_ms(window, limit, 1000)
    assert passes(window, limit, 1000, wait)
    assert not wait or not passes(window, limit, 1000, wait - 1)


def decisions(name: str) -> float:
    labels = {"policy": "default", "decision": name}
    return REGISTRY.get_sample_value("ratelimit_decisions_total", labels) or 0.0


def test_without_redis_this_process_limits_alone_and_counts_it() -> None:
    count_before = decisions("fallback_allowed"), decisions("fallback_refused")
    until_border_s = 60 - time.time() % 60
    if until_border_s < 1:  # the windows of the stand-in begin at full minutes
        time.sleep(until_border_s)
    rate_limiter = limiter(requests=5)
    results = [rate_limiter.decide("somebody")[0] for _ in range(7)]
    assert [d.allowed for d in results] == [True] * 5 + [False] * 2
    assert [d.remaining for d in results] == [4, 3, 2, 1, 0, 0, 0]
    assert rate_limiter.decide("somebody else")[0].allowed
    count_after = decisions("fallback_allowed"), decisions("fallback_refused")
    assert (count_after[0] - count_before[0], count_after[1] - count_before[1]) == (6, 2)


def test_threads_do_not_count_here_at_once() -> None:
    """Else one of them starts a timer of `limits` that another has started, and is answered 500."""
    rate_limiter = limiter()
    barrier, meetings = threading.Barrier(2), []

    class Timer:
        def is_alive(self) -> bool:
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(0.5)
                meetings.append(True)
            return True

    storage: Any = rate_limiter._default._local.storage
    storage.timer.join()
    storage.timer = Timer()
    with ThreadPoolExecutor(2) as threads:
        decided = list(threads.map(rate_limiter.decide, ["somebody", "somebody else"]))
    assert [decision.allowed for decision, _ in decided] == [True, True]
    assert not meetings


def test_every_answer_says_the_policy_and_what_is_left() -> None:
    rate_limiter = limiter(requests=2)
    headers = dict(rate_limiter.headers(rate_limiter.decide("somebody")[0]))
    assert headers.keys() == {"RateLimit-Policy", "RateLimit"}
    assert headers["RateLimit-Policy"] == '"default";q=2;w=60'
    remaining, _, seconds = headers["RateLimit"].removeprefix('"default";r=').partition(";t=")
    assert remaining == "1"
    assert 1 <= int(seconds) <= 60


def test_a_refusal_says_when_to_come_back() -> None:
    rate_limiter = limiter(requests=1)
    rate_limiter.decide("somebody")
    refusal = rate_limiter.decide("somebody")[0]
    headers = dict(rate_limiter.headers(refusal))
    assert headers["RateLimit"] == f'"default";r=0;t={refusal.reset_s}'
    assert headers["Retry-After"] == str(refusal.retry_after_s)
    assert 1 <= refusal.retry_after_s <= 61


@pytest.mark.parametrize("principal", ["", "a/b", "k\r\nSET x 1\r\n", "ä€𝄞", "x" * 10_000])
def test_any_text_can_be_a_principal(principal: str) -> None:
    assert limiter().decide(principal)[0].allowed


def test_commands_that_did_not_go_have_no_replies() -> None:
    assert limiter().decide("somebody", ("PING",))[1] is None
