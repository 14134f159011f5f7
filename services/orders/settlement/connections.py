"""What the commands connect to."""

import contextlib
from collections.abc import Iterator
from typing import Final

import msgspec

from orders import settings
from orders.database.pool import Pool
from orders.errors import SettingError
from orders.settings import DatabaseSettings, UpstreamSettings
from orders.settlement.evidence import Witnesses
from orders.upstream import ledgers
from orders.upstream.http import Upstream
from orders.upstream.ledgers import Ledger, PaymentEntry, StockEntry
from orders.upstream.policy import UpstreamPolicy, policy_of

APPLICATION: Final = "orders-command"


@contextlib.contextmanager
def database() -> Iterator[Pool]:
    """Open one connection to the primary. Raises SettingError when its address is not set."""
    mine = settings.load(DatabaseSettings)
    pool = Pool(mine.url, msgspec.structs.replace(mine, pool_size=1), APPLICATION)
    pool.open()
    try:
        yield pool
    finally:
        pool.close()


@contextlib.contextmanager
def witnesses(pool: Pool) -> Iterator[Witnesses]:
    """Open both ledgers. Raises SettingError when an address is not set."""
    with payment_ledger() as payments, stock_ledger() as stock:
        yield Witnesses(pool, payments, stock)


@contextlib.contextmanager
def payment_ledger() -> Iterator[Ledger[PaymentEntry]]:
    """Open the ledger of Payment. Raises SettingError when its address is not set."""
    upstreams = settings.load(UpstreamSettings)
    if upstreams.payment_url is None:
        raise SettingError("ORDERS_PAYMENT_URL is not set: its ledger is read")
    with contextlib.closing(
        Upstream("payment", upstreams.payment_url, _policy(upstreams))
    ) as upstream:
        yield ledgers.payments(upstream)


@contextlib.contextmanager
def stock_ledger() -> Iterator[Ledger[StockEntry]]:
    """Open the ledger of Inventory. Raises SettingError when its address is not set."""
    upstreams = settings.load(UpstreamSettings)
    with contextlib.closing(
        Upstream("inventory", upstreams.inventory_url, _policy(upstreams))
    ) as upstream:
        yield ledgers.reservations(upstream)


def _policy(upstreams: UpstreamSettings) -> UpstreamPolicy:
    return ledgers.for_pages(policy_of(upstreams))
