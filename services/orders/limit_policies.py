"""Further policies of the rate limit, as set by `ORDERS_RATE_LIMIT_POLICIES`.

A limit is written as `limits` reads it: "1000/minute", "20 per 10 seconds".
"""

import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

DEFAULT: Final = "default"  # the name of the limit per principal over all of /api/
MOST: Final = 32  # each costs a counter for every request that it matches, and a member of a header
# At most 10,000,000 requests and 30 days. `limits` would accept more.
PATTERN: Final = (
    r"^([1-9]\d{0,6}|10000000) ?(/|per) ?"
    r"(([1-9]\d{0,5} ?)?seconds?|([1-9]\d{0,3} ?)?minutes?|([1-9]\d? ?)?hours?"
    r"|(([1-9]|[12]\d|30) ?)?days?)$"
)

Scope = Literal["orders:read", "orders:write", "orders:admin"]
Action = Literal["create", "get", "list", "history", "cancel", "refund"]


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One limit. `scope` and `action` select the requests that it counts; default: all of /api/.

    `claim` is the name of the token's member for the tenant.
    """

    name: Annotated[str, Meta(pattern="^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$")]
    limit: Annotated[str, Meta(pattern=PATTERN)]
    per: Literal["principal", "tenant", "address"]
    claim: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    scope: Scope | None = None
    action: Action | None = None

    def __post_init__(self) -> None:
        """Refuse a policy that would count no request."""
        if (self.per == "tenant") != (self.claim is not None):
            raise ValueError('"per": "tenant" needs a "claim", and no other "per" accepts one')

    def amounts(self) -> tuple[int, int]:
        """Return the number of requests in a window, and its seconds."""
        from limits import (
            parse,
        )  # not at the top: every process reads settings, only the api limits

        item = parse(self.limit)
        return item.amount, item.get_expiry()

    def counts(self, scope: str | None, action: str | None) -> bool:
        """Return whether a request for an operation is counted."""
        return self.scope in {None, scope} and self.action in {None, action}


def read(text: str) -> tuple[Policy, ...]:
    """Return the policies of a JSON list; none for an empty text. Raises ValueError."""
    if not text:
        return ()
    try:
        policies = msgspec.json.decode(text, type=tuple[Policy, ...])
    except msgspec.ValidationError as error:
        raise ValueError(_explain(str(error))) from None
    except msgspec.DecodeError:
        raise ValueError("expected a JSON list of policies") from None
    names = [DEFAULT, *(policy.name for policy in policies)]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise ValueError(
            f"two policies are named {duplicates[0]}; {DEFAULT} is the limit per principal"
        )
    if len(policies) > MOST:
        raise ValueError(f"at most {MOST} policies are allowed")
    return policies


def _explain(message: str) -> str:
    """Return which member of which policy is wrong: `[1].limit: …`."""
    text, _, path = message.partition(" - at `$")
    if "matching regex" in text and path.endswith(".limit`"):
        text = (
            "expected requests and a window, such as 100/minute or 20 per 10 seconds"
            " (10,000,000 requests and 30 days at most)"
        )
    return re.sub(r"^: ", "", f"{path.rstrip('`')}: {text}")
