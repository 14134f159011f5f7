"""The count of messages in progress stays right when anything fails while a set takes one."""

import types
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest
from opentelemetry.trace import Span
from pika import BasicProperties

from integration.serving import eventually
from orders.errors import OrdersError
from orders.messaging.envelope import Delivery, Message
from orders.messaging.handling import Handling
from orders.messaging.sets import SetHandler, Sets, Source
from orders.telemetry import context, tracing


class Failing(Handling):
    """Fails in the step of that name."""

    def __init__(self, step: str) -> None:
        self._step = step

    def _may_fail(self, step: str) -> None:
        if step == self._step:
            raise ValueError(step)

    def root(self, _delivery: Delivery) -> AbstractContextManager[Span | None]:
        self._may_fail("root")
        ids, remote = context.accept("test", None)
        return tracing.root(ids, "test", tracing.CONSUMER, {}, remote=remote)

    def read(self, _delivery: Delivery, _span: Span | None) -> Message:
        self._may_fail("read")
        return None  # type: ignore[return-value] # nobody looks at it here

    def record_processed(self, _delivery: Delivery, _started: float) -> None:
        self._may_fail("record_processed")


class Parcel:
    def __init__(self) -> None:
        self.delivery = Delivery("q", "", "q", BasicProperties(), b"")
        self.channel: Any = types.SimpleNamespace(is_open=True)


class Outcomes:
    """Notes what becomes of each."""

    paused: str | None = None
    stopping = False

    def __init__(self) -> None:
        self.finished: list[Parcel] = []
        self.singled: list[Parcel] = []
        self.returned: list[Parcel] = []

    def finish(self, works: Sequence[Parcel]) -> None:
        self.finished += works

    def handle_singly(self, works: Sequence[Parcel], _error: OrdersError | None) -> None:
        self.singled += works

    def let_go(self, works: Sequence[Parcel]) -> None:
        self.returned += works


class Nobody:
    """A handler of sets that takes nothing; with `error`, it fails instead."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def work(self, _sets: Source) -> None:
        if self._error is not None:
            raise self._error

    def wake(self) -> None: ...


def filled(
    step: str, handler: SetHandler | None = None
) -> tuple[Outcomes, "Sets[Parcel]", list[Parcel]]:
    outcomes = Outcomes()
    sets: Sets[Parcel] = Sets(Failing(step), outcomes, handler or Nobody(), "test")
    parcels = [Parcel() for _ in range(3)]
    for parcel in parcels:
        sets.add(parcel)
    return outcomes, sets, parcels


@pytest.mark.parametrize("step", ["root", "read"])
def test_what_cannot_be_begun_is_handled_by_itself(step: str) -> None:
    outcomes, sets, parcels = filled(step)
    assert sets.take(10) == []
    assert outcomes.singled == parcels


def test_what_is_done_is_acknowledged_even_if_it_cannot_be_told_of() -> None:
    outcomes, sets, parcels = filled("record_processed")
    members = sets.take(10)
    with pytest.raises(ValueError, match="record_processed"):
        sets.done(members)
    assert (outcomes.finished, outcomes.singled) == (parcels, [])


def test_what_arrived_before_a_set_handler_failed_is_handled_by_itself() -> None:
    outcomes, sets, parcels = filled("nothing", Nobody(ValueError("a bug")))
    sets.start()
    try:
        eventually(lambda: outcomes.singled == parcels)
    finally:
        sets.close()


def test_what_a_set_handler_leaves_goes_back_when_the_consumer_stops() -> None:
    outcomes, sets, parcels = filled("nothing")
    outcomes.stopping = True
    sets.start()
    try:
        eventually(lambda: outcomes.returned == parcels)
    finally:
        sets.close()
