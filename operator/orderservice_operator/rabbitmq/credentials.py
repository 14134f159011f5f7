"""Which credentials may be sent to which management API. Pure.

A resource names a Secret and a URL, and the operator may read any Secret. Someone who can write a
resource but read no Secret must not be able to make the operator send one to them. So a Secret is
sent only if a label of it allows that, or to the host that its own URL names. It is never sent
unencrypted to a host outside the cluster.
"""

import ipaddress
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from orderservice_operator.cluster.secrets import Secret
from orderservice_operator.errors import Permanent
from orderservice_operator.resource.spec import GROUP, OrderService

LABEL: Final = f"{GROUP}/management"
BASIC_AUTH: Final = "kubernetes.io/basic-auth"
_IN_CLUSTER: Final = (".svc", ".svc.cluster.local", ".localhost")

User = tuple[str, str]


def user(service: OrderService, secret: Secret) -> User:
    """Return user and password of the Secret that a resource names. Raises Permanent."""
    messaging = service.spec.messaging
    url = urlsplit(messaging.management_url or "")
    if url.scheme == "http" and not _is_in_cluster(url.hostname or ""):
        raise Permanent(
            "messaging.managementUrl: passwords are sent unencrypted only to a host in the cluster"
            " (NAME, NAME.NAMESPACE.svc); use https"
        )
    if messaging.management_secret_ref is not None:
        return _of_management(secret)
    return _of_amqp(secret, messaging.secret_ref.key, url.hostname or "")


def amqp_user(service: OrderService, secret: Secret, key: str) -> User:
    """Return user and password of an amqp URL, to create in RabbitMQ. Raises Permanent.

    They are sent there by the same rule as any other password.
    """
    url = urlsplit(service.spec.messaging.management_url or "")
    return _of_amqp(secret, key, url.hostname or "")


def _of_management(secret: Secret) -> User:
    if secret.type != BASIC_AUTH and not _is_labelled(secret):
        raise Permanent(
            f"Secret {secret.name} is not sent anywhere: give it the type {BASIC_AUTH} or the "
            f"label {LABEL}=true"
        )
    return secret.entry("username"), secret.entry("password")


def _of_amqp(secret: Secret, key: str, host: str) -> User:
    address = _split(secret, key)
    name = address.hostname or ""
    is_same = name == host or (_is_loopback(name) and _is_loopback(host))
    if not (_is_labelled(secret) or is_same):
        raise Permanent(
            f"messaging.managementUrl names another host than Secret {secret.name}, whose password "
            f"is not sent there: set managementSecretRef, or give the Secret the label {LABEL}=true"
        )
    return unquote(address.username or ""), unquote(address.password or "")


def _split(secret: Secret, key: str) -> SplitResult:
    text = secret.entry(key)
    try:
        return urlsplit(text)
    except ValueError:  # its text quotes the password
        raise Permanent(
            f"Secret {secret.name}: entry {key} is not a URL; "
            "percent-encode special characters in its user and password"
        ) from None


def _is_labelled(secret: Secret) -> bool:
    return secret.labels.get(LABEL) == "true"


def _is_in_cluster(host: str) -> bool:
    """Return whether a host is in the cluster, or on a private network."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_IN_CLUSTER)
    return address.is_private


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
