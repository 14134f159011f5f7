"""The messages other teams read: their schemas may only grow."""

from typing import Any

import jsonschema
import msgspec
import pytest

from orders.domain import events, lifecycle
from orders.domain.events import OrderCreated, OrderEvent
from orders.messaging import schemas
from orders.messaging.envelope import BODIES

# What version 1 of every message promised. Never edit it: a test that needs it changed has found
# a change that breaks readers. Send a new type, `….v2`, beside the old one instead.
V1_PROPERTIES: dict[str, dict[str, Any]] = {
    "orderId": {"type": "integer", "minimum": 1},
    "version": {"type": "integer", "minimum": 1},
    "status": {"type": "string"},
    "reason": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
}
V1_REQUIRED = {"orderId", "version", "status"}


def test_the_committed_schemas_are_those_of_the_code() -> None:
    """After adding an optional member, run: python -m orders.messaging.schemas."""
    committed = {file.name: file.read_bytes() for file in schemas.FOLDER.glob("*.json")}
    assert committed == schemas.generate()


@pytest.mark.parametrize("name", BODIES)
def test_a_schema_only_grows(name: str) -> None:
    schema = schemas.schema(name)
    for member, promised in V1_PROPERTIES.items():
        described = dict(schema["properties"][member])
        described.pop("description", None)
        assert described == promised, f"{member} changed"
    assert set(schema["required"]) == V1_REQUIRED, "a new member must be optional"
    assert "additionalProperties" not in schema, "readers must let unknown members pass"


@pytest.mark.parametrize("name", BODIES)
def test_what_the_code_writes_follows_the_schema(name: str) -> None:
    validator = jsonschema.Draft202012Validator(schemas.schema(name))
    validator.validate(msgspec.to_builtins(OrderEvent(7, 1, "Pending")))
    validator.validate(msgspec.to_builtins(OrderEvent(7, 2, "Failed", "OutOfStock")))


def test_a_new_order_names_its_customer_and_need_not() -> None:
    validator = jsonschema.Draft202012Validator(schemas.schema(events.CREATED))
    validator.validate(msgspec.to_builtins(OrderCreated(7, 1, "Pending", user_id=9)))
    assert msgspec.json.decode(
        b'{"orderId": 7, "version": 1, "status": "Pending"}', type=OrderCreated
    ) == OrderCreated(7, 1, "Pending")


@pytest.mark.parametrize("name", BODIES)
def test_the_schema_refuses_what_the_code_refuses(name: str) -> None:
    validator = jsonschema.Draft202012Validator(schemas.schema(name))
    for wrong in ({}, {"orderId": 0, "version": 1, "status": "x"}, None):
        assert not validator.is_valid(wrong)
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, BODIES[name])


def test_every_announced_transition_has_a_schema() -> None:
    announced = {
        change.announces
        for status in lifecycle.Status
        for event in lifecycle.Event
        for cancel in (False, True)
        if (change := lifecycle.transition(status, event, cancel_requested=cancel))
        and change.announces
    }
    assert announced | {events.CREATED, events.STALLED} <= set(BODIES)
