"""Stored answers of requests with an Idempotency-Key."""

import contextlib
from collections.abc import Iterator

import msgspec

from orders.database.failures import Busy, Locked
from orders.database.pool import Pool


class Answer(msgspec.Struct, frozen=True):
    """What a request that changes an order is answered, now or on replay."""

    status: int
    body: bytes
    location: str
    etag: str
    order_id: int | None = None  # of a new order only
    replayed: bool = False


class KeyReused(Exception):
    """Send another Idempotency-Key: this one belongs to a request with other contents."""


def owners_principal(user_id: int) -> str:
    """Return who a key belongs to where nobody has to say who they are: the order's owner."""
    return f"user:{user_id}"


class Use(msgspec.Struct, frozen=True):
    """The use of a key: once per principal and route, with one content. Without a key: no use."""

    principal: str
    route: str
    key: str | None
    fingerprint: bytes

    @property
    def arguments(self) -> dict[str, object]:
        """Return what a statement stores of it."""
        return msgspec.structs.asdict(self)


def find(pool: Pool, use: Use) -> Answer | None:
    """Return what the first use of a key was answered, if it was used. Raises KeyReused."""
    if use.key is None:
        return None
    rows = pool.execute("find_answer", use.arguments)
    if not rows:
        return None
    fingerprint, status, body, location, tag = rows[0]
    if bytes(fingerprint) != use.fingerprint:
        raise KeyReused
    return Answer(status, body.encode(), location, tag, replayed=True)


@contextlib.contextmanager
def busy_if_locked(use: Use) -> Iterator[None]:
    """Tell who waited for a lock that the first use of the key holds it."""
    try:
        yield
    except Locked as error:
        if use.key is None:  # a migration, say: no other request is to blame
            raise
        raise Busy("the key's first use is running", retry_after_s=1) from error
