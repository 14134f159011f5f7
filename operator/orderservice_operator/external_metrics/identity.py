"""The server's certificate in its Secret: all replicas read it, the leader renews it."""

import base64
import datetime as dt
from collections.abc import Mapping
from typing import Final

import structlog

from orderservice_operator.children.manifest import Manifest
from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.owner import Owner
from orderservice_operator.errors import NotFound
from orderservice_operator.external_metrics import certificates
from orderservice_operator.external_metrics.address import ServiceAddress
from orderservice_operator.external_metrics.certificates import CertificateAndKey

_MANAGER: Final = "orderservice-operator-external-metrics"
_log = structlog.get_logger(__name__)


class Identity:
    """The pair in use and the one in the Secret."""

    def __init__(self, client: Client, address: ServiceAddress, owner: Owner) -> None:
        self._client, self._address, self._owner = client, address, owner
        self._version: str | None = None
        self._stored: CertificateAndKey | None = None
        self.pair: CertificateAndKey | None = None

    async def read(self) -> None:
        """Use the pair in the Secret, if it is sound."""
        try:
            secret = await self._client.get(self._address.secret)
        except NotFound:
            self._version = self._stored = None
            return
        self._version = secret["metadata"]["resourceVersion"]
        pair = pair_of(secret.get("data") or {})
        self._stored = pair if certificates.is_sound(pair) else None
        self.pair = self._stored or self.pair

    def successor(self) -> CertificateAndKey | None:
        """Return a new pair if the present one has to be replaced."""
        now, names = dt.datetime.now(dt.UTC), self._address.server_names
        if self._stored is None or certificates.is_due(self._stored, names, now):
            return certificates.issue(names, now, previous=self.pair)
        return None

    async def write(self, pair: CertificateAndKey) -> None:
        """Write a pair into the Secret. Raises Conflict if that has changed since it was read."""
        metadata = self._owner.owning({"name": self._address.secret.rpartition("/")[2]})
        metadata["labels"] = {"app.kubernetes.io/managed-by": "orderservice-operator"}
        if self._version is not None:
            metadata["resourceVersion"] = self._version
        manifest: Manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": "kubernetes.io/tls",
            "data": data_of(pair),
        }
        secret = await self._client.apply(self._address.secret, manifest, _MANAGER)
        self._version = secret["metadata"]["resourceVersion"]
        self._stored = self.pair = pair
        _log.info("external_metrics.certificate_renewed", secret=metadata["name"])


def pair_of(data: Mapping[str, str]) -> CertificateAndKey:
    """Read the entries of the Secret; missing or unreadable ones are empty."""
    values = (base64.b64decode(data.get(entry, "")) for entry in _ENTRIES)
    return CertificateAndKey(*(value.decode(errors="replace") for value in values))


def data_of(pair: CertificateAndKey) -> dict[str, str]:
    """Return the entries of the Secret."""
    values = (pair.certificate, pair.key, pair.authorities)
    encoded = (base64.b64encode(value.encode()).decode() for value in values)
    return dict(zip(_ENTRIES, encoded, strict=True))


_ENTRIES: Final = ("tls.crt", "tls.key", "ca.crt")
