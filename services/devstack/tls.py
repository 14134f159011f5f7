"""TLS in the whole stack, with DEVSTACK_TLS=1: its authority, and each server's certificate.

The authority, the certificates and their keys are in the state folder.
"""

import os
import socket
from pathlib import Path
from typing import Final

from devstack.certificates import HOSTS, Authority, Pair, ServerTls
from devstack.settings import VERIFIED, Settings

FOLDER: Final = "certificates"
SERVERS: Final = ("gateway", "postgres", "valkey", "rabbitmq", "inventory", "payment", "webhooks")
# What OpenSSL, requests and curl read whom they trust from.
TRUSTING: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
OF_DEBIAN: Final = "/etc/ssl/certs/ca-certificates.crt"
UNVERIFIED: Final = "ORDERS_TLS_UNVERIFIED"


def authority_file(settings: Settings) -> Path:
    """Return the certificate of the stack's authority."""
    return settings.state / FOLDER / "authority.pem"


def trusted_file(settings: Settings) -> Path:
    """Return the file with the stack's authority and those that the user trusts."""
    return settings.state / FOLDER / "trusted.pem"


def served(settings: Settings, name: str) -> ServerTls | None:
    """Return the certificate files of one of SERVERS, made or not; None without TLS."""
    if not settings.tls:
        return None
    folder = settings.state / FOLDER
    return ServerTls(authority_file(settings), Pair(folder / f"{name}.pem", folder / f"{name}.key"))


def variables(settings: Settings) -> dict[str, str]:
    """Return the variables that name the authorities that processes trust; none without TLS.

    It is the stack's authority alone unless a server is the user's own. Python reads the whole file
    for a process's first connection to Redis, which may take 50 ms, and Debian's 140 authorities
    take 20.
    """
    if not settings.tls:
        return {}
    has_user_servers = any(settings.environment.get(name) for name in VERIFIED)
    file = trusted_file(settings) if has_user_servers else authority_file(settings)
    unverified = settings.environment.get(UNVERIFIED, "none")
    return {"DEVSTACK_TLS": "1", UNVERIFIED: unverified, **dict.fromkeys(TRUSTING, str(file))}


def of_shell(settings: Settings) -> dict[str, str]:
    """Return the variables that differ in a person's shell, which also calls other servers."""
    return dict.fromkeys(TRUSTING, str(trusted_file(settings))) if settings.tls else {}


def prepare(settings: Settings) -> None:
    """Make certificates that are missing, about to expire or for other hosts; none without TLS."""
    if not settings.tls:
        return
    authority = Authority(settings.state / FOLDER)
    for name in SERVERS:
        authority.server(name, hosts_of(settings, name))
    # Named twice, an authority is trusted once.
    files = {authority_file(settings), *also_trusted(settings)}
    trusted_file(settings).write_bytes(b"\n".join(file.read_bytes() for file in sorted(files)))


def hosts_of(settings: Settings, name: str) -> tuple[str, ...]:
    """Return the hosts by which clients reach a server; the gateway has further ones."""
    if name != "gateway":
        return HOSTS
    everywhere = settings.gateway_host in {"0.0.0.0", "::"}  # noqa: S104 compared, not bound
    names = (settings.gateway_host, *((socket.gethostname(),) if everywhere else ()))
    return tuple(dict.fromkeys((*HOSTS, *names)))


def also_trusted(settings: Settings) -> list[Path]:
    """Return the files of authorities that the user's variables name, else Debian's."""
    files = [Path(settings.environment.get(name, "")) for name in TRUSTING]
    generated = {Path(), authority_file(settings), trusted_file(settings)}
    user_files = [file for file in files if file not in generated]
    return user_files or [file for file in (Path(OF_DEBIAN),) if os.access(file, os.R_OK)]
