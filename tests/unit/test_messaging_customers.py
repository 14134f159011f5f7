"""The order in which a worker takes messages while one customer has many."""

from orders.messaging.consumer import InHand
from orders.messaging.envelope import FEW, customer_of

HOT, OTHER, THIRD = 1, 2, 3


def with_many(maximum: int = 10) -> InHand:
    """Return the counts of a worker that holds many messages of a customer."""
    in_hand = InHand(maximum)
    for _ in range(FEW + 1):
        assert not in_hand.add(HOT)
    return in_hand


def test_while_nobody_has_many_there_is_no_priority() -> None:
    in_hand = InHand(10)
    assert not any(in_hand.add(customer) for customer in range(1000) for _ in range(FEW))


def test_customers_with_few_messages_have_priority_over_one_with_many() -> None:
    in_hand = with_many()
    assert in_hand.add(OTHER)
    assert in_hand.add(THIRD)
    assert not in_hand.add(HOT)


def test_ten_messages_of_a_customer_have_priority() -> None:
    in_hand = with_many(maximum=100)
    assert [in_hand.add(OTHER) for _ in range(FEW + 1)] == [True] * FEW + [False]


def test_only_so_many_messages_have_priority_at_a_time() -> None:
    in_hand = with_many(maximum=2)
    assert [in_hand.add(customer) for customer in (2, 3, 4)] == [True, True, False]
    in_hand.remove(4, priority=False)
    assert not in_hand.add(4)
    in_hand.remove(2, priority=True)
    assert in_hand.add(5)


def test_once_nobody_has_many_any_more_there_is_no_priority() -> None:
    in_hand = with_many()
    in_hand.remove(HOT, priority=False)
    assert not in_hand.add(OTHER)
    assert not in_hand.add(HOT)
    assert in_hand.add(OTHER)


def test_messages_that_name_no_customer_have_no_priority() -> None:
    in_hand = with_many()
    assert not in_hand.add(None)
    in_hand.remove(None, priority=False)
    assert in_hand.add(OTHER)


def test_a_body_that_cannot_be_read_names_no_customer() -> None:
    nested = b'{"x":' + b"[" * 5_000 + b"]" * 5_000 + b',"userId":1}'
    bodies = [b"", b"[]", b"null", b"{}", b'{"userId":"1"}', b'{"userId":null}', b"\xff", nested]
    assert [customer_of(body) for body in bodies] == [None] * len(bodies)
    assert customer_of(b'{"orderId":7,"userId":1}') == customer_of('{"userId":1}') == 1
