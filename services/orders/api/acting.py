"""For whom a request acts that names an order, but no user."""

import contextlib

from orders.api.auth import Caller, user_principal
from orders.cache.writers import RecentWriters
from orders.errors import Transient


def principal(caller: Caller) -> str | None:
    """Return whose a request's Idempotency-Key is: the subject's, None for the order's owner."""
    return None if caller.subject is None else user_principal(caller.subject)


def mark_owner(writers: RecentWriters | None, caller: Caller, owner_id: int) -> None:
    """Have the owner's lists read on the primary, if the admission could not know the owner.

    The change is committed: a failure here costs a fresh list, not the answer.
    """
    if writers is not None and caller.user_id != owner_id:
        with contextlib.suppress(Transient):
            writers.mark(owner_id)
