"""Which callers are admitted: only the API server's aggregation layer, by its certificate.

The aggregation layer has authenticated and authorised the caller for the same path and verb before
it passes a request on, so we do not ask again. Source:
https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/
"""

import ssl
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from orderservice_operator.errors import Permanent

# Every kube-apiserver writes it, and every authenticated server of an aggregated API may read it.
CONFIG_MAP: Final = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"


class FrontProxy(msgspec.Struct, frozen=True):
    """The authority of the aggregation layer's certificates, and their allowed names.

    Without names, every certificate of the authority is accepted.
    """

    authority_pem: str
    names: frozenset[str]


def read(data: Mapping[str, str]) -> FrontProxy:
    """Read the ConfigMap. Raises Permanent when this cluster has no aggregation layer."""
    authority = data.get("requestheader-client-ca-file", "")
    if not authority:
        raise Permanent("the API server has no aggregation layer: --requestheader-client-ca-file")
    names = msgspec.json.decode(data.get("requestheader-allowed-names", "[]"), type=list[str])
    return FrontProxy(authority, frozenset(names))


def refusal(certificate: Mapping[str, Any] | None, proxy: FrontProxy) -> str | None:
    """Return why a caller with this verified certificate is refused, or None."""
    if not certificate:
        return "only the API server's aggregation layer may call: no client certificate"
    # As `ssl` describes a certificate: a tuple of pairs for each part of its subject.
    fields = [field for pairs in certificate.get("subject", ()) for field in pairs]
    name = next((value for member, value in fields if member == "commonName"), "")
    if proxy.names and name not in proxy.names:
        return f"only the API server's aggregation layer may call, not {name!r}"
    return None


def tls(proxy: FrontProxy, chain_file: str) -> ssl.SSLContext:
    """Return the TLS context: a chain and key from a file, and optional client certificates.

    A caller without a certificate may connect, so that it gets a readable refusal.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=proxy.authority_pem)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(chain_file)
    return context
