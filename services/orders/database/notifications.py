"""Which notifications were sent: each once per order and template, as far as can be."""

import msgspec

from orders.database.pool import Pool


class Claim(msgspec.Struct, frozen=True):
    """The right to send a notification now; `webhook_id` is the same on every try."""

    webhook_id: str
    granted: bool
    sent: bool  # by somebody, before


class Notifications:
    """The notifications of ended orders."""

    def __init__(self, primary: Pool, claim_s: float) -> None:
        self._primary, self._claim_s = primary, claim_s

    def claim(self, order_id: int, template: str, message_id: str) -> Claim:
        """Ask to be the only sender for `claim_s` seconds."""
        rows = self._primary.execute(
            "claim_notification",
            {
                "order_id": order_id,
                "template": template,
                "message_id": message_id,
                "claim_s": self._claim_s,
            },
        )
        if not rows:  # another sender's first claim committed while this statement ran
            return Claim("", granted=False, sent=False)
        webhook_id, granted, sent = rows[0]
        return Claim(str(webhook_id), granted, sent)

    def settle(self, order_id: int, template: str, *, sent: bool) -> None:
        """End a claim: the notification was sent, or the next try may begin."""
        self._primary.execute(
            "settle_notification", {"order_id": order_id, "template": template, "sent": sent}
        )
