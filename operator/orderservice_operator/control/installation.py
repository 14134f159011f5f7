"""Which of several installations of the operator manages a resource.

If their scopes overlap, each would revert what the other writes, for ever. So each marks a resource
as its own before it writes anything (`status.operator`). It leaves alone what another one has
marked as long as that one is alive: its Lease is renewed and its scope contains the resource. An
installation without a Lease has no name; it marks nothing and always gives way.
"""

import time
from collections.abc import Callable
from typing import Final

import msgspec
import structlog

from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.lease import covers, path_of, scope_of
from orderservice_operator.errors import Forbidden, NotFound
from orderservice_operator.resource.decoding import Invalid
from orderservice_operator.resource.spec import OrderService

# A guess: longer than any hand-over between replicas of one installation, an upgrade included.
DEAD_AFTER_S: Final = 60.0
_READ_S: Final = 5.0
_log = structlog.get_logger(__name__)


class _LeaseReading(msgspec.Struct):
    """A Lease as last read; `renewal` is None if there is none."""

    renewal: tuple[str, str] | None
    changed_at: float
    read_at: float
    scope: str = ""


class Installation:
    """An installation, by the name of its Lease (`namespace/name`), and its view of others.

    `clock` counts seconds.
    """

    def __init__(
        self, client: Client, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client, self.name, self._clock = client, name, clock
        self._leases: dict[str, _LeaseReading] = {}

    async def other(self, service: OrderService | Invalid) -> str:
        """Return the name of the installation that owns a resource, if it is not this one."""
        holder = service.status.operator
        if holder in {"", self.name} or not await self._works(holder, service):
            return ""
        return holder

    async def is_contended(self, service: OrderService | Invalid) -> bool:
        """Return whether the installation that gave way still has this namespace in its scope."""
        contender = service.status.contender
        return contender not in {"", self.name} and await self._works(contender, service)

    async def _works(self, name: str, service: OrderService | Invalid) -> bool:
        lease = self._leases.get(name)
        if lease is None or self._clock() - lease.read_at >= _READ_S:
            lease = self._leases[name] = await self._read(name, lease)
        if lease.renewal is None or self._clock() - lease.changed_at >= DEAD_AFTER_S:
            return False
        return covers(lease.scope, service.metadata.namespace)

    async def _read(self, name: str, previous: _LeaseReading | None) -> _LeaseReading:
        """Read a Lease, and measure its age by our own clock: those of nodes differ."""
        now = self._clock()
        try:
            lease = await self._client.get(path_of(name))
        except NotFound:
            return _LeaseReading(None, now, now)
        except Forbidden as error:  # a Lease in another namespace: the owner may be alive
            _log.warning("installation.unread", lease=name, error=str(error))
            return _LeaseReading(("", ""), now, now)
        spec = lease["spec"]
        renewal = str(spec.get("holderIdentity")), str(spec.get("renewTime"))
        is_same = previous is not None and previous.renewal == renewal
        changed_at = previous.changed_at if previous is not None and is_same else now
        return _LeaseReading(renewal, changed_at, now, scope_of(lease))
