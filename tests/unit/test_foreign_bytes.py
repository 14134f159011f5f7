"""Parsers of foreign input return a value or one of our errors, for any input."""

import json
import uuid
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orders import verified
from orders.admin import Admin
from orders.api import issuer, order_list
from orders.api.middleware import client_address
from orders.api.order_list import InvalidCursor, unseal
from orders.api.problems import Refusal
from orders.api.requests import check_media_type, is_known
from orders.cache.address import target_of
from orders.cache.orders import decode as decode_entry
from orders.errors import Permanent, SettingError
from orders.messaging import envelope
from orders.messaging.address import addresses
from orders.messaging.management import Management
from orders.probes import Checks, ProcessState
from orders.settings import MessagingSettings, TopologySettings, UpstreamSettings, load
from orders.telemetry import context
from orders.upstream.http import InvalidAnswer
from orders.upstream.transport import HttpResponse, retry_after_s

ANY = st.text(st.characters(max_codepoint=0xFF), max_size=60)  # as WSGI tunnels octets


def joined(*parts: str, maximum: int = 8) -> st.SearchStrategy[str]:
    """Put parts of a grammar together in any order, beside anything else."""
    return st.lists(st.sampled_from(parts) | ANY, max_size=maximum).map("".join)


# -- media types (RFC 9110, 8.3) and what scrapers accept ----------------------------------------

MEDIA = joined(
    "application/json",
    ";",
    "; ",
    "charset=utf-8",
    'charset="utf-8"',
    "charset=",
    "=",
    '"',
    "/",
    ",",
)


@given(content_type=MEDIA, encoding=st.none() | ANY)
@example(content_type="application/json; ; charset=utf-8;", encoding=None)
def test_a_media_type_is_json_or_refused(content_type: str, encoding: str | None) -> None:
    try:
        check_media_type(content_type, encoding)
    except Refusal as refusal:
        assert refusal.kind.status == 415  # noqa: PT017 either is right
    else:
        assert content_type.lower().lstrip(" \t").startswith("application/json")
        assert encoding is None


ACCEPT = joined(
    "application/openmetrics-text", "text/plain", "*/*", ";", ",", "; ", "version=1.0.0",
    "version=", 'version="1.0.0"', "version=x", "version=1", "version=0.0.4", "escaping=values",
    "q=0.5", "q=",
)  # fmt: skip


@pytest.fixture(scope="module")
def admin() -> Admin:
    return Admin(Checks([]), ProcessState(stalled_after_s=10))


@given(accept=ACCEPT)
@example(accept='text/plain;version="1.0.0"')
@example(accept='application/openmetrics-text;version="1.0.0";q=0.5')
@settings(max_examples=50)
def test_every_scraper_gets_metrics(admin: Admin, accept: str) -> None:
    answer = admin.answer("/metrics", accept)
    assert answer.status == 200
    assert "\n" not in answer.content_type


@given(target=joined("/", "/livez", "?", "verbose", "[", "]", "//", "http://", "@", ":", "%", "℀"))
@example(target="//[")
@example(target="//[x]/livez")
@example(target="//℀/")
def test_every_target_of_the_admin_port_has_an_answer(admin: Admin, target: str) -> None:
    assert admin.answer(target).status in (200, 404, 503)


# -- queries, cursors, addresses, tags, trace context --------------------------------------------


@given(text=joined("page=", "pageSize=", "cursor=", "&", "%", "%ff", "1", "=", ";", "+", "A" * 44))
def test_a_query_is_a_page_or_refused(text: str) -> None:
    try:
        query = order_list.page_query(text)
    except Refusal as refusal:
        assert refusal.kind.status == 400  # noqa: PT017 either is right
    else:
        assert query.page * query.page_size <= order_list.MAX_DEPTH


@given(text=ANY | st.text("AQz09-_=", min_size=43, max_size=45))
def test_no_cursor_but_ours_is_valid(text: str) -> None:
    with pytest.raises(InvalidCursor):
        unseal(text, 7, b"a key of some length")


@given(
    forwarded=joined("1.2.3.4", "::1", "[::1]", ", ", ":80", "fe80::1%eth0", "unknown", "for="),
    proxies=st.integers(0, 3),
)
def test_an_address_is_one_or_the_peers(forwarded: str, proxies: int) -> None:
    env = {"HTTP_X_FORWARDED_FOR": forwarded, "REMOTE_ADDR": "192.0.2.1"}
    assert len(client_address(env, proxies)) <= 45


@given(etag=st.just('"v1"'), tags=joined('"v1"', 'W/"v1"', "*", ",", '"', " "))
def test_a_tag_is_known_only_where_it_is_listed(etag: str, tags: str) -> None:
    if is_known(etag, tags):
        assert etag in tags or tags.strip() == "*"


@given(correlation=ANY, traceparent=joined("00-", "a" * 32, "-", "b" * 16, "01", "ff", "0" * 32))
def test_ids_of_strangers_are_taken_whole_or_replaced(correlation: str, traceparent: str) -> None:
    context_of_request, remote = context.accept(correlation, traceparent)
    assert context_of_request.traceparent.isascii()
    assert 1 <= len(context_of_request.correlation_id) <= 64
    assert not remote or context_of_request.trace_id in traceparent


# -- answers of other servers --------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
MEMBERS = ("n", "e", "x", "y", "crv", "d", "kid", "use", "alg", "key_ops")
VALUES = st.sampled_from(["AQAB", "", "====", "é", "P-256", "Ed25519", "sig"]) | JSON
KEY: st.SearchStrategy[object] = st.fixed_dictionaries(
    {"kty": st.sampled_from(["RSA", "EC", "OKP", "oct", "", 5, None, []])},
    optional=dict.fromkeys(MEMBERS, VALUES),
)


@given(keys=st.lists(KEY | JSON, max_size=3))
@settings(max_examples=50, deadline=None)
def test_keys_of_an_issuer_are_read_or_no_answer(keys: list[object]) -> None:
    body = json.dumps({"keys": keys}).encode()
    with suppress(InvalidAnswer):
        issuer._read(HttpResponse(200, body), ("RS256", "ES256", "EdDSA"))


@given(
    field=joined(
        "Sun, ", "06 Nov 1994 ", "08:49:37 GMT", "31 Feb 9999 ", "-1", "1e5", "inf", "nan", "٣",
        "9" * 400, "+9999", "24:60:61", "Sun Nov  6 08:49:37 1994", "29 Feb 10000", "0",
    )
)  # fmt: skip
@example(field="Fri, 31 Dec 9999 23:59:59 -2400")
@example(field="9" * 5000)
def test_retry_after_is_a_wait_or_nothing(field: str) -> None:
    wait_s = retry_after_s(field)
    assert wait_s is None or 0 <= wait_s < float("inf")


# -- bodies of messages, entries of the cache ----------------------------------------------------

BODY = st.fixed_dictionaries(
    {},
    optional={
        "orderId": st.integers() | JSON, "version": st.integers() | JSON,
        "status": st.text(max_size=8) | JSON, "reason": JSON, "userId": st.integers() | JSON,
    },
)  # fmt: skip


@given(
    message_type=st.sampled_from(sorted(envelope.BODIES)),
    body=(BODY | JSON).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60),
    cut=st.integers(0, 200),
)
@example(message_type="order.created.v1", body=b"[" * 100_000, cut=100_000)
def test_a_body_of_a_message_is_an_event_or_malformed(
    message_type: str, body: bytes, cut: int
) -> None:
    properties = envelope.properties(
        str(uuid.uuid4()), message_type, correlation_id=None, traceparent=None, created_at_s=1
    )
    delivery = envelope.Delivery("other", "orders", message_type, properties, body[:cut])
    try:
        message = envelope.decode(delivery, envelope.ids(delivery)[0])
    except Permanent as refusal:
        assert refusal.reason == "malformed"  # noqa: PT017 either is right
    else:
        assert message.body.order_id >= 1
    customer = envelope.customer_of(delivery.body)
    assert customer is None or type(customer) is int


@given(stored=st.binary(max_size=60) | joined("7", " ", "-1", "1", "{}").map(str.encode))
@example(stored=b"9" * 5_000 + b" 7 1 {}")
def test_an_entry_of_the_cache_is_an_order_or_counts_as_missing(stored: bytes) -> None:
    entry = decode_entry(3, stored)
    assert entry is None or stored.endswith(entry.body)


# -- addresses in settings -----------------------------------------------------------------------

HOSTS = joined(
    "broker", "[::1]", "[fe80::1%25eth0]", "[", "]", ":", ":5672", ":99999", "user:p@", ","
)
SECRET = "only-a-secret"


@pytest.mark.parametrize(
    "host", ["[", "[::1", "[x]", "[::1::2]", "a:99999", "a:x", f"u:{SECRET}@a\u2100b", ":80", "a:0"]
)
def test_an_address_that_cannot_be_read_is_refused_by_name_without_its_password(host: str) -> None:
    with pytest.raises(SettingError) as caught:
        load(TopologySettings, {"ORDERS_MANAGEMENT_URL": f"http://{host}/"})
    assert "ORDERS_MANAGEMENT_URL" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(SettingError) as caught:
        load(
            UpstreamSettings,
            {"ORDERS_INVENTORY_URL": f"http://{host}/", "ORDERS_INVENTORY_TOKEN_FILE": "/t"},
        )
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("host", ["[::1]:15672", "[fd00::1]", "broker.example:443", "10.0.0.1"])
def test_an_address_may_be_ipv6(host: str) -> None:
    assert load(UpstreamSettings, {"ORDERS_INVENTORY_URL": f"http://{host}/a"}).inventory_url
    assert Management(
        load(TopologySettings, {"ORDERS_MANAGEMENT_URL": f"http://{host}"}).management_url, "/"
    )


SCHEMES = {
    "ORDERS_DATABASE_URL": "postgresql", "ORDERS_DATABASE_REPLICA_URL": "postgresql",
    "ORDERS_REDIS_URL": "rediss", "ORDERS_AMQP_URL": "amqps", "ORDERS_MANAGEMENT_URL": "https",
    "ORDERS_INVENTORY_URL": "https", "ORDERS_PAYMENT_URL": "https",
    "ORDERS_NOTIFICATION_URL": "https", "ORDERS_AUTH_JWKS_URL": "https",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "https", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https",
}  # fmt: skip
UNREADABLE = ("[::1", "[x]", f"u:{SECRET}@a\u2100b", f"u:{SECRET}@[", "a:99999", "a:x")


def test_every_address_is_known_here() -> None:
    variables = {name for name in verified.VARIABLES if name != "ORDERS_DATABASE_SESSION_URL"}
    assert set(SCHEMES) == variables


@given(
    name=st.sampled_from(sorted(SCHEMES)), hosts=HOSTS | st.sampled_from(UNREADABLE),
    query=joined("?", "sslmode=", "verify-full", "ssl_cert_reqs=none", "&", "host=", "[::1]", "%"),
)  # fmt: skip
def test_whether_a_server_is_verified_is_told_of_any_address(
    name: str, hosts: str, query: str
) -> None:
    url = f"{SCHEMES[name]}://{hosts}/v{query}"
    for variable, fault in verified.faults({name: url}):
        assert variable == name
        assert SECRET not in fault


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_a_verified_server_may_have_an_ipv6_address(name: str) -> None:
    mode = "?sslmode=verify-full" if "DATABASE" in name else ""
    url = f"{SCHEMES[name]}://u:p@[2001:db8::1]:9/v{mode}"
    assert list(verified.faults({name: url})) == []
    assert list(verified.faults({name: f"{SCHEMES[name]}://[::1]:9/v"})) == []


@pytest.mark.parametrize("scheme", ["rediss", "redis+sentinel", "redis+cluster"])
@pytest.mark.parametrize("host", UNREADABLE)
def test_an_address_of_redis_that_cannot_be_read_is_refused_without_its_password(
    scheme: str, host: str
) -> None:
    path = "/service" if "sentinel" in scheme else "/0"
    with pytest.raises(SettingError, match="ORDERS_REDIS_URL") as caught:
        target_of(f"{scheme}://{host}{path}")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@given(hosts=HOSTS, scheme=st.sampled_from(["redis", "rediss", "redis+sentinel", "redis+cluster"]))
def test_an_address_of_redis_is_read_or_refused(hosts: str, scheme: str) -> None:
    with suppress(SettingError):
        target_of(f"{scheme}://{hosts}/0")


@given(hosts=HOSTS)
def test_an_address_of_a_broker_is_read_or_refused(hosts: str) -> None:
    try:
        assert addresses(MessagingSettings(url=f"amqp://{hosts}/v"), "name")
    except SettingError as error:
        assert "ORDERS_AMQP_URL" in str(error)  # noqa: PT017 either is right
