"""The virtual host and the users of a resource, created in RabbitMQ on request.

Nothing is deleted: a virtual host holds messages, and others may know a user. A user with tags is
an administrator's or a person's, and is left alone. Nothing is written where nothing differs: the
password is compared with its salted hash.

Source: https://www.rabbitmq.com/docs/passwords
"""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import structlog

from orderservice_operator.errors import Permanent
from orderservice_operator.rabbitmq.management import Management, quoted
from orderservice_topology.permissions import permissions

_SALT_BYTES: Final = 4
_ALGORITHMS: Final = {
    "rabbit_password_hashing_sha256": "sha256",
    "rabbit_password_hashing_sha512": "sha512",
}
_log = structlog.get_logger(__name__)


class Account(msgspec.Struct, frozen=True):
    """A user of processes, with its password."""

    name: str
    password: str
    processes: tuple[str, ...]


class Rights(msgspec.Struct, frozen=True):
    """Regular expressions over names of exchanges and queues."""

    configure: str
    write: str
    read: str


class _BrokerUser(msgspec.Struct, frozen=True):
    password: str
    tags: str = ""


class _Nothing(msgspec.Struct, frozen=True):
    pass


async def make_virtual_host(management: Management, vhost: str, user: str) -> None:
    """Create a missing virtual host, and give the management's own user access."""
    path = f"vhosts/{quoted(vhost)}"
    if await management.get(path) is None:
        await management.put(path, _Nothing())
        _log.info("vhost.made", vhost=vhost)
    if await management.get(f"permissions/{quoted(vhost)}/{quoted(user)}") is None:
        await _grant(management, vhost, user, Rights(".*", ".*", ".*"))


async def make_users(management: Management, vhost: str, accounts: Iterable[Account]) -> None:
    """Create users, or reset their passwords and rights. Raises Permanent for one with tags."""
    for account in accounts:
        await _make_user(management, account)
        rights = rights_of(account.processes)
        permissions = await management.get(f"permissions/{quoted(vhost)}/{quoted(account.name)}")
        expected = msgspec.to_builtins(rights).items()
        if permissions is None or any(permissions.get(name) != value for name, value in expected):
            await _grant(management, vhost, account.name, rights)


async def _make_user(management: Management, account: Account) -> None:
    path = f"users/{quoted(account.name)}"
    user = await management.get(path)
    if user is not None and is_password_of(user, account.password):
        return
    if user is not None and user.get("tags"):
        raise Permanent(
            f"messaging.provision: user {account.name} exists with tags and another password; "
            "put the user of a process into the amqp URL"
        )
    await management.put(path, _BrokerUser(account.password))
    _log.info("user.made", user=account.name)


async def _grant(management: Management, vhost: str, user: str, rights: Rights) -> None:
    await management.put(f"permissions/{quoted(vhost)}/{quoted(user)}", rights)
    _log.info("user.allowed", user=user, vhost=vhost)


def rights_of(processes: Iterable[str]) -> Rights:
    """Return the combined rights of processes that share a user."""
    rights = [permissions()[process] for process in processes]
    return Rights(
        configure=_joined(right.configure for right in rights),
        write=_joined(right.write for right in rights),
        read=_joined(right.read for right in rights),
    )


def is_password_of(user: Mapping[str, Any], password: str) -> bool:
    """Return whether a listed user has this password; True if the hash is unknown."""
    algorithm = _ALGORITHMS.get(user.get("hashing_algorithm", ""))
    if algorithm is None:
        return True
    try:
        hashed = base64.b64decode(user.get("password_hash", ""))
    except ValueError:
        return False
    salt, digest = hashed[:_SALT_BYTES], hashed[_SALT_BYTES:]
    return hmac.compare_digest(hashlib.new(algorithm, salt + password.encode()).digest(), digest)


def _joined(patterns: Iterable[str]) -> str:
    return "|".join(sorted(set(patterns)))
