"""The connections of the commands to PostgreSQL and the ledgers."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from orders import settings
from orders.database.connection import SESSION, Connection, connect, sessions
from orders.database.pool import Pool, opened
from orders.database.progress import Primary
from orders.database.statements import Row, statement, translated
from orders.errors import SettingError
from orders.settings import DatabaseSettings, UpstreamSettings
from orders.settlement.evidence import EvidenceSources
from orders.upstream import ledgers
from orders.upstream.credential import credential_of
from orders.upstream.http import Upstream
from orders.upstream.ledgers import Ledger, PaymentEntry, StockEntry
from orders.upstream.policy import UpstreamPolicy, policy_of

APPLICATION: Final = "orders-command"


@contextlib.contextmanager
def database() -> Iterator[Pool]:
    """Open one connection to the primary. Raises SettingError when its address is not set."""
    with opened(settings.load(DatabaseSettings), APPLICATION) as pool:
        yield pool


@contextlib.contextmanager
def transaction() -> Iterator[Primary]:
    """Open a session for statements that commit together or not at all.

    It bypasses a pooler, where each statement is a transaction of its own.
    """
    database_settings = settings.load(DatabaseSettings)
    with (
        contextlib.closing(
            connect(sessions(database_settings), database_settings, APPLICATION, SESSION)
        ) as session,
        translated(),
        session.transaction(),
    ):
        yield _Transaction(session)


class _Transaction:
    def __init__(self, session: Connection) -> None:
        self._session = session

    def execute(self, name: str, arguments: Mapping[str, Any]) -> list[Row]:
        return self._session.rows(statement(name), arguments)

    def wake_relay(self) -> None:
        """Do nothing: the relay polls within ORDERS_RELAY_POLL_S."""


@contextlib.contextmanager
def evidence_sources(pool: Pool) -> Iterator[EvidenceSources]:
    """Open both ledgers. Raises SettingError when an address is not set."""
    with payment_ledger() as payments, stock_ledger() as stock:
        yield EvidenceSources(pool, payments, stock)


@contextlib.contextmanager
def payment_ledger() -> Iterator[Ledger[PaymentEntry]]:
    """Open the ledger of Payment. Raises SettingError when its address is not set."""
    upstreams = settings.load(UpstreamSettings)
    if upstreams.payment_url is None:
        raise SettingError("ORDERS_PAYMENT_URL is not set: its ledger is read")
    credential = credential_of(upstreams, "payment")
    with contextlib.closing(
        Upstream("payment", upstreams.payment_url, _policy(upstreams), credential=credential)
    ) as upstream:
        yield ledgers.payments(upstream)


@contextlib.contextmanager
def stock_ledger() -> Iterator[Ledger[StockEntry]]:
    """Open the ledger of Inventory. Raises SettingError when its address is not set."""
    upstreams = settings.load(UpstreamSettings)
    credential = credential_of(upstreams, "inventory")
    with contextlib.closing(
        Upstream("inventory", upstreams.inventory_url, _policy(upstreams), credential=credential)
    ) as upstream:
        yield ledgers.reservations(upstream)


def _policy(upstreams: UpstreamSettings) -> UpstreamPolicy:
    return ledgers.for_pages(policy_of(upstreams))
