"""Headers, path and query: each has one reading, or is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.api.middleware import client_address
from orders.api.order_list import page_query
from orders.api.problems import Refusal
from orders.api.requests import idempotency_key, is_known, number
from orders.domain.order import MAX_ID
from orders.telemetry import context


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("abc", "abc"), ('"abc"', "abc"), ("a" * 255, "a" * 255),
        ('"' + "a" * 255 + '"', "a" * 255),
        ('"a,b"', "a,b"), ('"a\\"b\\\\c"', 'a"b\\c'), ("550e8400-e29b-41d4", "550e8400-e29b-41d4"),
        ("~!#$%&'()*+-./:;<=>?@[]^_`{|}", "~!#$%&'()*+-./:;<=>?@[]^_`{|}"), ('a"b', 'a"b'),
    ],
)  # fmt: skip
def test_a_key_is_taken_quoted_or_bare(header: str, key: str) -> None:
    assert idempotency_key(header, required=True) == key


@pytest.mark.parametrize(
    "header",
    ["", " ", '""', '"', '"a', "a" * 256, '"' + "a" * 256 + '"', "a b", "é", "a\x7f", "a\tb", "a\n",
     "a,b", "a, b", '"a","b"', "a,", ",", '"a"b', '"a\\x"', '"a";p=1'],
)  # fmt: skip
def test_a_repeated_empty_long_or_strange_key_is_refused(header: str) -> None:
    with pytest.raises(Refusal) as caught:
        idempotency_key(header, required=False)
    assert caught.value.kind.status == 400


def test_a_key_can_be_required() -> None:
    assert idempotency_key(None, required=False) is None
    with pytest.raises(Refusal):
        idempotency_key(None, required=True)


@pytest.mark.parametrize(
    ("header", "counted"),
    [
        ("203.0.113.7", "203.0.113.7"), ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2:FFFF:FFFF:FFFF:FFFF", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"), ("fe80::1%eth0", "fe80::/64"),
    ],
)  # fmt: skip
def test_an_ipv6_client_counts_by_its_network(header: str, counted: str) -> None:
    assert client_address({"HTTP_X_FORWARDED_FOR": f"6.6.6.6, {header}"}, 1) == counted


@given(st.text())
def test_no_key_is_longer_than_the_column(header: str) -> None:
    try:
        key = idempotency_key(header, required=True)
    except Refusal:
        return
    assert key is not None
    assert 1 <= len(key) <= 255
    assert key.isascii()


@pytest.mark.parametrize("header", ['"v1"', 'W/"v1"', '"v0", "v1"', '"a" , W/"v1"', "*", " * "])
def test_a_known_version_is_recognised(header: str) -> None:
    assert is_known('"v1"', header)


@pytest.mark.parametrize("header", [None, "", '"v2"', "v1", '"v11"', 'W/"v2", "x"', '"*"'])
def test_another_version_is_not(header: str | None) -> None:
    assert not is_known('"v1"', header)


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("42", 42), (str(MAX_ID), MAX_ID)])
def test_an_id_is_read(text: str, value: int) -> None:
    assert number("id", text) == value


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "+1", "01", "1.0", "1e3", " 1", "1 ", "1\n", "a", "0x1", "1_000", "٣", "１",
     str(MAX_ID + 1), "9" * 5000, "null", "²", "\x00"],
)  # fmt: skip
def test_another_id_is_refused_by_name(text: str) -> None:
    with pytest.raises(Refusal, match="id must be an integer from 1 to 9007199254740991"):
        number("id", text)


def test_a_list_has_defaults() -> None:
    query = page_query("")
    assert (query.page, query.page_size, query.offset, query.cursor) == (1, 20, 0, None)


def test_a_page_skips_those_before_it() -> None:
    assert page_query("page=3&pageSize=50").offset == 100


@pytest.mark.parametrize("query", ["page=100&pageSize=100", "page=10000&pageSize=1", "page=500"])
def test_shallow_pages_are_allowed(query: str) -> None:
    page_query(query)


@pytest.mark.parametrize("query", ["page=101&pageSize=100", "page=10001&pageSize=1", "page=501"])
def test_deep_pages_are_refused_and_point_at_the_cursor(query: str) -> None:
    with pytest.raises(Refusal, match="cursor"):
        page_query(query)


@pytest.mark.parametrize(
    "query",
    ["page=0", "page=-1", "page=a", "page=", "page", "pageSize=0", "pageSize=101", "pageSize=1.5",
     "page=1&page=2", "page=1&page=1", "pageSize=1&pageSize=1", "cursor=a&cursor=a",
     "page=1&cursor=a", "page=%FF", "page=1%00", "&".join(["a=1"] * 60)],
)  # fmt: skip
def test_another_query_is_refused(query: str) -> None:
    with pytest.raises(Refusal) as caught:
        page_query(query)
    assert caught.value.kind.status == 400


def test_unknown_query_members_are_ignored() -> None:
    assert page_query("utm=1&utm=2&pageSize=7&Page=9").page_size == 7


def env(forwarded: str | None) -> dict[str, Any]:
    fields = {} if forwarded is None else {"HTTP_X_FORWARDED_FOR": forwarded}
    return {"REMOTE_ADDR": "192.0.2.1", **fields}


@pytest.mark.parametrize(
    ("forwarded", "proxies", "address"),
    [
        (None, 1, "192.0.2.1"),
        ("198.51.100.7", 1, "198.51.100.7"),
        ("10.0.0.1, 198.51.100.7", 1, "198.51.100.7"),  # what the client claimed is not believed
        ("6.6.6.6, 198.51.100.7, 10.0.0.9", 2, "198.51.100.7"),
        ("198.51.100.7", 2, "198.51.100.7"),
        ("198.51.100.7", 0, "192.0.2.1"),
        ("10.0.0.1, not an address", 1, "192.0.2.1"),
        ("10.0.0.1,", 1, "192.0.2.1"),
        ("2001:DB8:0:0::1", 1, "2001:db8::/64"),
    ],
)
def test_a_client_is_who_the_trusted_proxy_saw(
    forwarded: str | None, proxies: int, address: str
) -> None:
    assert client_address(env(forwarded), proxies) == address


BYTES = st.text(alphabet=st.characters(max_codepoint=255), max_size=200)


@given(BYTES, st.integers(0, 3))
def test_a_forwarded_address_of_any_bytes_counts_for_someone(text: str, proxies: int) -> None:
    fields = {"HTTP_X_FORWARDED_FOR": text, "REMOTE_ADDR": "192.0.2.1"}
    assert client_address(fields, proxies)


@given(BYTES, BYTES)
def test_ids_of_any_bytes_are_taken_over_or_replaced(correlation: str, trace: str) -> None:
    for parent in (trace, f"00-{'1' * 32}-{'2' * 16}-{trace}"):
        ids, _ = context.accept(correlation, parent)
        assert ids.correlation_id.isascii()
        assert len(ids.correlation_id) <= 64
        assert len(ids.traceparent) == 55


@given(BYTES)
def test_entity_tags_of_any_bytes_are_compared(text: str) -> None:
    assert is_known('"v1"', text) in {True, False}
