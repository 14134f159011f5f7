"""Leader election by a Lease: one replica works; the others only watch, ready to take over.

Source: https://kubernetes.io/docs/concepts/architecture/leases/
"""

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from typing import Final

import structlog

from orderservice_operator.children.manifest import Manifest
from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.owner import Owner
from orderservice_operator.errors import NotFound, OperatorError
from orderservice_operator.resource.spec import GROUP

# For other installations: the namespaces of the holder, comma-separated; empty: all.
SCOPE_ANNOTATION: Final = f"{GROUP}/namespaces"
DURATION_S: Final = 12.0
_INTERVAL_S: Final = 2.5
# Stop well before another replica may start: its clock started when it last saw us renew.
_GIVE_UP_S: Final = 8.0
_log = structlog.get_logger(__name__)


def path_of(full_name: str) -> str:
    """Return the path of the Lease `namespace/name`."""
    namespace, _, name = full_name.partition("/")
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"


def scope_of(lease: Manifest) -> str:
    """Return the namespaces of the holder of a Lease, comma-separated; empty: all."""
    annotations = lease["metadata"].get("annotations") or {}
    return str(annotations.get(SCOPE_ANNOTATION, ""))


def covers(scope: str, namespace: str) -> bool:
    """Return whether a scope includes a namespace."""
    return not scope or namespace in scope.split(",")


class LeaderLease:
    """One replica's view of the Lease `namespace/name`; `scope` is noted on it."""

    def __init__(
        self, client: Client, full_name: str, identity: str, owner: Owner, scope: str = ""
    ) -> None:
        self._name = full_name.partition("/")[2]
        self._all = path_of(full_name).rpartition("/")[0]
        self._client, self._identity, self._owner = client, identity, owner
        self._scope = {SCOPE_ANNOTATION: scope}
        self._mine: Manifest | None = None  # from the last answer, while we hold it
        self._renewal = ("", "")
        self._renewal_changed_at = 0.0
        self.held = False

    async def acquire(self) -> None:
        """Return once this replica leads."""
        while not self.held:
            try:
                self.held = await self._try()
            except OperatorError as error:
                _log.warning("lease.failed", error=str(error))
            if not self.held:
                await asyncio.sleep(_INTERVAL_S)
        _log.info("lease.acquired", identity=self._identity)

    async def keep(self) -> None:
        """Renew until the Lease is lost, then return: all work must stop at once."""
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(_GIVE_UP_S):
                    if not await self._renew():
                        break
        self.held = False
        _log.error("lease.lost", identity=self._identity)

    async def release(self) -> None:
        """Release the Lease at a clean stop, so that another replica starts at once."""
        if not self.held:
            return
        self.held = False
        try:
            lease = await self._client.get(f"{self._all}/{self._name}")
            if lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"]["holderIdentity"] = ""
                await self._client.replace(f"{self._all}/{self._name}", lease)
        except OperatorError as error:
            _log.warning("lease.failed", error=str(error))

    async def _renew(self) -> bool:
        """Wait, then renew with as many tries as needed; return whether we still hold it."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            try:
                return await self._try()
            except OperatorError as error:
                _log.warning("lease.failed", error=str(error))

    async def _try(self) -> bool:
        """Take or renew the Lease. Raises Conflict if another replica was faster."""
        lease, self._mine = self._mine or await self._read(), None
        if lease is None:
            self._mine = await self._client.create(self._all, self._new())
            return True
        spec = lease["spec"]
        if spec.get("holderIdentity") not in {"", None, self._identity} and not self._stale(spec):
            return False
        lease["spec"] = self._renewed(spec)
        annotations = lease["metadata"].get("annotations") or {}
        lease["metadata"]["annotations"] = annotations | self._scope
        self._mine = await self._client.replace(f"{self._all}/{self._name}", lease)
        return True

    async def _read(self) -> Manifest | None:
        try:
            return await self._client.get(f"{self._all}/{self._name}")
        except NotFound:
            return None

    def _stale(self, spec: Manifest) -> bool:
        """Measure with our own clock since the last change that we saw: clocks of nodes differ."""
        renewal = (str(spec.get("holderIdentity")), str(spec.get("renewTime")))
        if renewal != self._renewal:
            self._renewal, self._renewal_changed_at = renewal, time.monotonic()
        duration_s: float = spec.get("leaseDurationSeconds", DURATION_S)
        return time.monotonic() - self._renewal_changed_at > duration_s

    def _new(self) -> Manifest:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": self._owner.owning({"name": self._name, "annotations": self._scope}),
            "spec": self._renewed({}),
        }

    def _renewed(self, spec: Manifest) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        is_holder = spec.get("holderIdentity") == self._identity
        return spec | {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(DURATION_S),
            "renewTime": now,
            "acquireTime": spec.get("acquireTime", now) if is_holder else now,
            "leaseTransitions": spec.get("leaseTransitions", 0) + (not is_holder),
        }
