"""The breaker of a broker: what opens it, and what passes through it."""

import asyncio
from typing import Any

import pytest
from pybreaker import CircuitBreaker, CircuitBreakerError

from orderservice_operator.errors import Permanent, Transient
from orderservice_operator.rabbitmq.keeper import Keeper


def _keeper_breaker(make: Any) -> CircuitBreaker:
    async def main() -> CircuitBreaker:
        keeper = Keeper(None, lambda _: None)  # type: ignore[arg-type]
        try:
            first = keeper.breaker(make("prod"))
            assert keeper.breaker(make("prod", worker={"prefetch": 3})) is first
            assert keeper.breaker(make("staging")) is not first
            return first
        finally:
            await keeper.close()

    return asyncio.run(main())


async def _ask(breaker: CircuitBreaker, error: Exception | None = None) -> str:
    with breaker.calling():
        await asyncio.sleep(0)
        if error is not None:
            raise error
        return "answer"


def test_a_broker_that_does_not_answer_is_left_alone_after_a_few_tries(make: Any) -> None:
    breaker = _keeper_breaker(make)
    for _ in range(3):
        with pytest.raises(Transient):
            asyncio.run(_ask(breaker, Transient("no")))
    with pytest.raises(CircuitBreakerError):
        asyncio.run(_ask(breaker))


def test_a_broker_that_refuses_is_alive(make: Any) -> None:
    breaker = _keeper_breaker(make)
    for _ in range(5):
        with pytest.raises(Permanent):
            asyncio.run(_ask(breaker, Permanent("no")))
    assert asyncio.run(_ask(breaker)) == "answer"
