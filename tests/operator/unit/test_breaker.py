"""The circuit breaker of a broker: what opens it, which calls pass, and what is reported."""

import asyncio
from typing import Any

import pytest
from pybreaker import CircuitBreakerError

from orderservice_operator.control.settings import Settings
from orderservice_operator.errors import Permanent, Transient, Unknown
from orderservice_operator.rabbitmq.breaker import Breaker
from orderservice_operator.rabbitmq.reconciler import TopologyReconciler


def test_resources_of_a_broker_share_its_gate(make: Any) -> None:
    async def main() -> None:
        topologies = TopologyReconciler(None, lambda _: None, list)  # type: ignore[arg-type]
        first = topologies.breaker(make("prod"))
        assert topologies.breaker(make("prod", worker={"prefetch": 3})) is first
        assert topologies.breaker(make("staging")) is not first
        await topologies.close()

    asyncio.run(main())


async def _ask(breaker: Breaker, error: Exception | None = None, *, wait_s: float = 0) -> str:
    with breaker.calling():
        await asyncio.sleep(wait_s)
        if error is not None:
            raise error
        return "answer"


def test_a_broker_that_does_not_answer_is_left_alone_after_a_few_tries() -> None:
    breaker = Breaker()
    for _ in range(3):
        with pytest.raises(Transient):
            asyncio.run(_ask(breaker, Transient("no")))
    with pytest.raises(CircuitBreakerError):
        asyncio.run(_ask(breaker))


def test_a_broker_that_failed_is_asked_by_one_at_a_time() -> None:
    """Otherwise a broker that hangs would hold up every caller."""
    breaker = Breaker()

    async def main() -> list[Any]:
        await asyncio.gather(_ask(breaker, Transient("no")), return_exceptions=True)
        calls = [_ask(breaker, wait_s=0.01) for _ in range(5)]
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(main())
    assert answers[0] == "answer"
    assert all(isinstance(answer, CircuitBreakerError) for answer in answers[1:])
    assert asyncio.run(_ask(breaker)) == "answer"


@pytest.mark.parametrize("answer", [Permanent("no"), Unknown("no such queue")])
def test_a_broker_that_refuses_or_does_not_know_is_alive(answer: Exception) -> None:
    """An autoscaler that asks for a queue must not keep the operator from making it."""
    breaker = Breaker()
    for _ in range(5):
        with pytest.raises(type(answer)):
            asyncio.run(_ask(breaker, answer))
    assert asyncio.run(_ask(breaker)) == "answer"


def test_by_default_drift_is_seen_and_mended_within_a_minute() -> None:
    """A look may take as long as its requests may: one fails, the next is made a period later."""
    look_s = 15
    assert Settings().topology_s + look_s <= 60
