"""A faulty client that sends the same purchase many times at once."""

from typing import Final

from gevent.pool import Group

from loadtest.locusts.journey import Journey

_AT_ONCE: Final = 8
_REPLAYED: Final = "Idempotency-Replayed"


def storm(journey: Journey) -> None:
    """Send one purchase many times at once, then once more, then another body with its key."""
    purchase = journey.purchase()
    try:
        group = Group()
        for _ in range(_AT_ONCE):
            group.spawn(journey.post, "create", purchase, (202, 409))
        group.join(raise_error=True)
        if journey.buy(purchase) is not None:
            reply = journey.post("replay", purchase, (202,))
            if reply.status == 202 and reply.headers.get(_REPLAYED) != "true":
                journey.client.wrong("replay", "not marked")
            body = purchase.body.replace(b'"quantity":1', b'"quantity":2')
            journey.post("reuse", purchase, (422,), body)
    finally:
        journey.settle(purchase)
