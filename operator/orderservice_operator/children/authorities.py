"""The certificates of spec.caBundleSecretRef, in every container that opens connections."""

from typing import Final

from orderservice_operator.children.manifest import Manifest
from orderservice_operator.resource.pods import CA_FOLDER
from orderservice_operator.resource.spec import OrderService

VOLUME: Final = "ca-bundle"
_FILE: Final = "ca.crt"
_PATH: Final = f"{CA_FOLDER}/{_FILE}"
# Each library has its own variable: OpenSSL (amqps, rediss, JWKS), requests (upstreams,
# webhooks), libpq, OpenTelemetry.
_VARIABLES: Final = (
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "PGSSLROOTCERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
)


def settings(service: OrderService) -> dict[str, str]:
    """Return the variables that name the file, and it alone; none without a bundle."""
    if service.spec.ca_bundle_secret_ref is None:
        return {}
    # Without it OpenSSL reads the image's directory of public authorities beside the file. In this
    # folder it finds none: it looks for files that are named by the hash of a subject.
    return dict.fromkeys(_VARIABLES, _PATH) | {"SSL_CERT_DIR": CA_FOLDER}


def entries(service: OrderService) -> set[tuple[str, str]]:
    """Return the Secret and its entry, if there is a bundle."""
    bundle = service.spec.ca_bundle_secret_ref
    return {(bundle.name, bundle.key)} if bundle else set()


def volumes(service: OrderService) -> list[Manifest]:
    """Return the volume, if there is a bundle."""
    bundle = service.spec.ca_bundle_secret_ref
    if bundle is None:
        return []
    items = [{"key": bundle.key, "path": _FILE}]
    return [{"name": VOLUME, "secret": {"secretName": bundle.name, "items": items}}]


def mounts(service: OrderService) -> list[Manifest]:
    """Return the mount of that volume."""
    if service.spec.ca_bundle_secret_ref is None:
        return []
    return [{"name": VOLUME, "mountPath": CA_FOLDER, "readOnly": True}]
