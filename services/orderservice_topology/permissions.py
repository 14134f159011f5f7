"""The rights of each process's own user in RabbitMQ.

Copies of messages (retries, dead letters) go through the default exchange, whose name in
permissions is `amq.default`. Source: https://www.rabbitmq.com/docs/access-control
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from orderservice_topology.topology import (
    EXCHANGE,
    NOTIFICATIONS,
    PROCESSING,
    UNROUTED,
    dead_queue,
)

_NOTHING: Final = "^$"
_DEFAULT_EXCHANGE: Final = "amq.default"


class Permissions(msgspec.Struct, frozen=True):
    """Regular expressions over names of exchanges and queues, and the tags of the user."""

    configure: str = _NOTHING
    write: str = _NOTHING
    read: str = _NOTHING
    tags: str = ""


def permissions() -> Mapping[str, Permissions]:
    """Return the permissions of each process in the virtual host of the topology."""
    # All names of the topology begin so, those of a later release as well.
    all_names = f"^({EXCHANGE}|order-).*$"
    dead_letters = _any(UNROUTED, dead_queue(PROCESSING), dead_queue(NOTIFICATIONS))
    return {
        "topology": Permissions(all_names, all_names, all_names, tags="policymaker"),
        "relay": Permissions(write=_any(EXCHANGE)),
        "worker": Permissions(write=_any(_DEFAULT_EXCHANGE), read=_any(PROCESSING)),
        "notifier": Permissions(write=_any(_DEFAULT_EXCHANGE), read=_any(NOTIFICATIONS)),
        "support": Permissions(write=_any(_DEFAULT_EXCHANGE, EXCHANGE), read=dead_letters),
    }


def _any(*names: str) -> str:
    """Return a regular expression that matches these names; a dash is no operator there."""
    return f"^({'|'.join(name.replace('.', chr(92) + '.') for name in names)})$"
