"""What each process may do in Redis: a user of its own for each of them.

A rule names the beginnings of keys behind the prefix of the installation, and commands. Scripts are
bound by the same rules. Source: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
"""

from collections.abc import Mapping
from typing import Final

import msgspec

ORDERS: Final = "order:"
LIMITS: Final = "ratelimit:"
WRITERS: Final = "wrote:"

_CONNECT: Final = frozenset({"info"})  # tells a primary from a replica
_TRACK: Final = frozenset({"hello", "client|tracking"})  # hears which orders changed
_PUT: Final = frozenset({"eval", "evalsha", "get", "set"})
_FORGET: Final = frozenset({"scan", "unlink", "set"})  # after a promotion of PostgreSQL


class AclRules(msgspec.Struct, frozen=True):
    """The rights of one user: key prefixes and commands."""

    keys: tuple[str, ...]
    commands: frozenset[str]

    def acl(self, prefix: str) -> str:
        """Return the rules as ACL SETUSER takes them; `prefix` is ORDERS_REDIS_PREFIX."""
        keys = (f"~{prefix}{key}*" for key in self.keys)
        commands = (f"+{command}" for command in sorted(self.commands))
        return " ".join(("resetkeys", "resetchannels", *keys, "-@all", *commands))


def users() -> Mapping[str, AclRules]:
    """Return the rules of each process that uses Redis."""
    limit_and_mark = {"ping", "time", "exists", "pttl"}  # what their scripts call, too
    return {
        "api": AclRules((ORDERS, LIMITS, WRITERS), _CONNECT | _TRACK | _PUT | limit_and_mark),
        "worker": AclRules((ORDERS,), _CONNECT | _TRACK | _PUT | _FORGET),
        "support": AclRules((ORDERS,), _CONNECT | _PUT | _FORGET),
    }


def installation() -> AclRules:
    """Return the rules of a single user for all processes."""
    commands = (rules.commands for rules in users().values())
    return AclRules(("",), frozenset().union(*commands))
