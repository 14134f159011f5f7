"""Checks that connections are encrypted and verify their server, with advice if they do not.

Verified: the server presents a certificate from an authority that we trust, for the host in the
setting. Connections to this machine need neither.
"""

import ipaddress
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qs, urlsplit

import structlog

from orders.errors import SettingError

UNVERIFIED: Final = "ORDERS_TLS_UNVERIFIED"
ALL: Final = "*"
NONE: Final = "none"

# OpenSSL's codes for faults of a certificate (x509_vfy.h).
_EXPIRED: Final = frozenset({9, 10})
_OTHER_HOST: Final = frozenset({62, 64})

EXPIRED: Final = "the server's certificate has expired or is not valid yet: renew it"
OTHER_HOST: Final = (
    "the server's certificate is for another host: use the host name in the certificate"
)
UNKNOWN_AUTHORITY: Final = (
    "the server's certificate is from an authority that is not trusted: add the authority to "
)
TLS_DEMANDED: Final = "the server requires TLS: set sslmode=verify-full"
CLIENT_DEMANDED: Final = (
    "the server requires a client certificate: set sslcert and sslkey in the URL"
)
# Faults of our own certificate, as an HTTP, AMQP or Redis server reports them.
_PAGE: Final = "docs/tls.md, Certificates of the client"
CERTIFICATE_ABSENT: Final = (
    f"the server requires a client certificate: set its file and its key file ({_PAGE})"
)
CERTIFICATE_UNTRUSTED: Final = (
    "the server does not trust the authority of our certificate: make the server trust it, or set"
    f" a certificate from an authority that it trusts ({_PAGE})"
)
CERTIFICATE_EXPIRED: Final = f"our certificate has expired: replace its file ({_PAGE})"
CERTIFICATE_REFUSED: Final = (
    f"the server refuses our certificate: see its log, and set another certificate ({_PAGE})"
)
HANDSHAKE_REFUSED: Final = (
    "the server refuses the handshake: it may require a client certificate"
    f" ({_PAGE}), or another version of TLS"
)
# The alerts of RFC 8446, section 6.2: the ends of OpenSSL's names.
_OF_ALERTS: Final = {
    "CERTIFICATE_REQUIRED": CERTIFICATE_ABSENT,
    "UNKNOWN_CA": CERTIFICATE_UNTRUSTED,
    "CERTIFICATE_EXPIRED": CERTIFICATE_EXPIRED,
    "BAD_CERTIFICATE": CERTIFICATE_REFUSED,
    "CERTIFICATE_REVOKED": CERTIFICATE_REFUSED,
    "CERTIFICATE_UNKNOWN": CERTIFICATE_REFUSED,
    "UNSUPPORTED_CERTIFICATE": CERTIFICATE_REFUSED,
    "ACCESS_DENIED": CERTIFICATE_REFUSED,
    "HANDSHAKE_FAILURE": HANDSHAKE_REFUSED,
}
# nginx accepts the connection and answers 400 with a page.
_OF_NGINX: Final = {
    b"No required SSL certificate was sent": CERTIFICATE_ABSENT,
    b"The SSL certificate error": CERTIFICATE_REFUSED,
}
AUTHORITIES: Final = "SSL_CERT_FILE"
OF_POSTGRES: Final = "PGSSLROOTCERT (or sslrootcert in the URL)"
OF_REQUESTS: Final = "REQUESTS_CA_BUNDLE"


def url_parts(url: str) -> SplitResult:
    """Split a URL that may name several hosts. `hostname` and `port` are those of a single one.

    From 3.11.12 and 3.12.9 on, `urlsplit` refuses an address in brackets that is not the first.
    """
    scheme, separator, location = url.partition("://")
    if not separator:
        return urlsplit(url)
    hosts = re.split("[/?#]", location, maxsplit=1)[0]
    return urlsplit(f"{scheme}://{location[len(hosts) :]}")._replace(netloc=hosts)


def _postgres(url: str, environ: Mapping[str, str]) -> str | None:
    split_url = url_parts(url)
    query = {name: values[-1] for name, values in parse_qs(split_url.query).items()}
    mode = query.get("sslmode") or environ.get("PGSSLMODE") or "prefer"
    hosts = query.get("host") or split_url.netloc.rpartition("@")[2]
    if mode == "verify-full" or all(is_local(_without_port(host)) for host in hosts.split(",")):
        return None
    return f"sslmode is {mode}: set sslmode=verify-full"


def _redis(url: str, _environ: Mapping[str, str]) -> str | None:
    if (fault := _scheme(url, "rediss", "redis://")) is not None:
        return fault
    query = parse_qs(url_parts(url).query)
    is_unverified = query.get("ssl_cert_reqs", [""])[0] in {"none", "optional"}
    any_host = query.get("ssl_check_hostname", [""])[0].lower() in {"false", "0", "no"}
    if (is_unverified or any_host) and not _all_local(url):
        return "ssl_cert_reqs or ssl_check_hostname disables verification: remove them"
    return None


def _amqp(url: str, _environ: Mapping[str, str]) -> str | None:
    fault = _scheme(url, "amqps", "amqp://")
    if fault is None and "protocol" in url_parts(url).query and not _all_local(url):
        return "ssl_options with a protocol disables verification: remove the protocol"
    return fault


def _http(url: str, _environ: Mapping[str, str]) -> str | None:
    return _scheme(url, "https", "http://")


def _scheme(url: str, encrypted_scheme: str, plain_scheme: str) -> str | None:
    scheme = url.partition("://")[0].lower().partition("+")[0]
    if scheme in {encrypted_scheme, "unix"} or _all_local(url):
        return None
    return f"{plain_scheme} is not encrypted: use {encrypted_scheme}://"


def _all_local(url: str) -> bool:
    authority = url_parts(url).netloc.rpartition("@")[2]
    return all(is_local(_without_port(host)) for host in authority.split(","))


def _without_port(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def is_local(host: str) -> bool:
    """Return whether a host is this machine: a loopback address, its name, or a socket's path."""
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# Messages of libpq, OpenSSL, PostgreSQL and PgBouncer, and our advice.
_OF_LIBPQ: Final = {
    "does not match host name": OTHER_HOST,
    "server certificate for": OTHER_HOST,
    "certificate required": CLIENT_DEMANDED,
    "requires a valid client certificate": CLIENT_DEMANDED,
    "SSL required": TLS_DEMANDED,
    "no encryption": TLS_DEMANDED,
    # libpq reports both with the same words.
    "certificate verify failed": f"{UNKNOWN_AUTHORITY}{OF_POSTGRES}, or renew it if it has expired",
    "root certificate file": f"sslmode=verify-full needs an authority: set {OF_POSTGRES}",
    "does not support SSL": "the server has no TLS: enable it there, or use another sslmode",
}

_log = structlog.get_logger()
_Judge = Callable[[str, Mapping[str, str]], str | None]
_JUDGES: Final[Mapping[str, _Judge]] = {
    "ORDERS_DATABASE_URL": _postgres,
    "ORDERS_DATABASE_SESSION_URL": _postgres,
    "ORDERS_DATABASE_REPLICA_URL": _postgres,
    "ORDERS_REDIS_URL": _redis,
    "ORDERS_AMQP_URL": _amqp,
    "ORDERS_MANAGEMENT_URL": _http,
    "ORDERS_INVENTORY_URL": _http,
    "ORDERS_PAYMENT_URL": _http,
    "ORDERS_NOTIFICATION_URL": _http,
    "ORDERS_AUTH_JWKS_URL": _http,
    "OTEL_EXPORTER_OTLP_ENDPOINT": _http,
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": _http,
}
VARIABLES: Final = tuple(_JUDGES)


def faults(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each variable whose connections are not verified, with advice."""
    for variable, judge in _JUDGES.items():
        # Commas separate replicas; a comma within a URL separates its hosts.
        first_url, *url_ends = environ.get(variable, "").strip().split(",postgres")
        for url in (first_url, *(f"postgres{url_end}" for url_end in url_ends)):
            if (fault := _run_judge(judge, url, environ)) is not None:
                yield variable, fault
                break


def _run_judge(judge: _Judge, url: str, environ: Mapping[str, str]) -> str | None:
    try:
        return judge(url, environ)
    except ValueError:  # its text contains the URL and its password
        return "its host cannot be read: put an IPv6 address in [ ]"


def refused(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield those of `faults` that ORDERS_TLS_UNVERIFIED does not allow by name."""
    allowed = allowances(environ.get(UNVERIFIED, ""))
    for variable, fault in faults(environ):
        if ALL not in allowed and variable not in allowed:
            yield variable, fault


def report(environ: Mapping[str, str]) -> None:
    """Log unverified connections that are not allowed by name; refuse those for OTLP.

    Raises SettingError. All others were refused when their settings were read.
    """
    allowed = allowances(environ.get(UNVERIFIED, ""))
    for variable, fault in faults(environ):
        if ALL in allowed:
            _log.warning("connection.not_verified", setting=variable, advice=fault)
        elif variable.startswith("OTEL_") and variable not in allowed:
            raise SettingError(refusal(variable, fault))


def refusal(variable: str, fault: str) -> str:
    """Return why a setting is refused, and both remedies."""
    return f"{variable} is refused: {fault}; or name {variable} in {UNVERIFIED}"


def allowances(text: str) -> frozenset[str]:
    """Read the setting: `*`, `none`, or names separated by commas. Raises ValueError."""
    names = frozenset(name.strip() for name in (text.strip() or ALL).split(","))
    if names in ({ALL}, {NONE}):
        return names
    if unknown_names := sorted(names - set(VARIABLES)):
        raise ValueError(
            f"{', '.join(unknown_names)}: expected *, none, or some of {', '.join(VARIABLES)}"
        )
    return names


def advice(error: BaseException, authorities: str = AUTHORITIES) -> str | None:
    """Return advice on a refused certificate, or None for another error."""
    visited: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop()
        if not isinstance(cause, BaseException) or id(cause) in visited:
            continue
        visited.add(id(cause))
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _advice(cause.verify_code, authorities)
        if isinstance(cause, ssl.SSLError):
            alert = str(cause.reason).rpartition("ALERT_")[2]
            if alert in _OF_ALERTS:
                return _OF_ALERTS[alert]
        waiting += [cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args]
    return None


def _advice(code: int, authorities: str) -> str:
    if code in _EXPIRED:
        return EXPIRED
    if code in _OTHER_HOST:
        return OTHER_HOST
    return f"{UNKNOWN_AUTHORITY}{authorities}"


def advice_of_libpq(message: str) -> str | None:
    """Return advice on a message of libpq, or None."""
    matches = (advice for words, advice in _OF_LIBPQ.items() if words in message)
    return next(matches, None)


def advice_of_nginx(body: bytes) -> str | None:
    """Return advice on an error page of nginx, or None."""
    matches = (advice for words, advice in _OF_NGINX.items() if words in body)
    return next(matches, None)
