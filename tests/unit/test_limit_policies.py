"""The values of `ORDERS_RATE_LIMIT_POLICIES`, and the errors for wrong ones."""

import json
from typing import Any

import limits
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.api.wiring import read_settings
from orders.errors import SettingError
from orders.limit_policies import MOST, Policy, read
from orders.settings import RateLimitSettings, load

TENANT = {"name": "org", "limit": "100/minute", "per": "tenant", "claim": "org_id"}
OWN = {"name": "own", "limit": "100/minute", "per": "principal"}


def loaded(text: str) -> tuple[Policy, ...]:
    return load(RateLimitSettings, {"ORDERS_RATE_LIMIT_POLICIES": text}).further


def test_policies_are_read_in_order() -> None:
    policies = loaded(json.dumps([TENANT, {**OWN, "scope": "orders:write", "action": "create"}]))
    assert [policy.name for policy in policies] == ["org", "own"]
    assert policies[0].claim == "org_id"
    assert loaded("") == loaded("[]") == ()


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("100/minute", (100, 60)),
        ("20 per 10 seconds", (20, 10)),
        ("1/second", (1, 1)),
        ("10000000 per 30 days", (10_000_000, 2_592_000)),
        ("5 per 2 hours", (5, 7200)),
    ],
)
def test_a_limit_is_written_as_limits_reads_it(text: str, amounts: tuple[int, int]) -> None:
    assert loaded(json.dumps([{**OWN, "limit": text}]))[0].amounts() == amounts


@given(
    requests=st.integers(0, 20_000_000),
    between=st.sampled_from(["/", " per ", "per", " / "]),
    multiple=st.one_of(st.none(), st.integers(0, 2_000_000)),
    unit=st.sampled_from(["second", "seconds", "minute", "hours", "day", "days", "month", "years"]),
)
def test_what_is_accepted_is_within_bounds_and_means_the_same_to_limits(
    requests: int, between: str, multiple: int | None, unit: str
) -> None:
    text = f"{requests}{between}{'' if multiple is None else multiple} {unit}".replace("  ", " ")
    try:
        (policy,) = read(json.dumps([{**OWN, "limit": text}]))
    except ValueError:
        return
    item = limits.parse(text)
    assert policy.amounts() == (item.amount, item.get_expiry())
    assert 1 <= item.amount <= 10_000_000
    assert 1 <= item.get_expiry() <= 2_592_000


@pytest.mark.parametrize(
    ("policies", "words"),
    [
        ("x", "expected a JSON list"),
        ("{}", "Expected `array`"),
        ([{**OWN, "limit": "many"}], r"\[0\].limit: expected requests and a window"),
        ([OWN, {**TENANT, "limit": "1/month"}], r"\[1\].limit: expected requests and a window"),
        ([{**OWN, "limit": "1/second; 5/minute"}], "expected requests and a window"),
        ([{**OWN, "per": "planet"}], r"\[0\].per: Invalid enum value 'planet'"),
        ([{**OWN, "name": "Own Policy"}], r"\[0\].name"),
        ([{**OWN, "scopes": "orders:read"}], "unknown field `scopes`"),
        ([{**OWN, "claim": "org_id"}], '"per": "tenant" needs a "claim"'),
        ([{**TENANT, "claim": None}], '"per": "tenant" needs a "claim"'),
        ([OWN, OWN], "two policies are named own"),
        ([{**OWN, "name": "default"}], "two policies are named default"),
        ([{**OWN, "name": f"p{n}"} for n in range(MOST + 1)], "at most 32 policies"),
    ],
)
def test_what_is_wrong_is_named(policies: Any, words: str) -> None:
    text = policies if isinstance(policies, str) else json.dumps(policies)
    with pytest.raises(SettingError, match=f"ORDERS_RATE_LIMIT_POLICIES is wrong: .*{words}"):
        loaded(text)


def test_tenants_are_counted_only_where_tokens_name_them() -> None:
    environ = {
        "ORDERS_DATABASE_URL": "postgresql://a@b/c",
        "ORDERS_CURSOR_SECRET": "s" * 16,
        "ORDERS_INVENTORY_URL": "http://inventory",
        "ORDERS_PAYMENT_URL": "http://payment",
        "ORDERS_RATE_LIMIT_POLICIES": json.dumps([TENANT]),
    }
    with pytest.raises(SettingError, match="org counts tenants, who are named by tokens"):
        read_settings(environ)
    environ["ORDERS_RATE_LIMIT_POLICIES"] = json.dumps([OWN])
    read_settings(environ)
