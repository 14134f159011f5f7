"""The ids a peer may hand over, and those it may not."""

import re

import pytest

from orders.telemetry import context

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def test_a_valid_pair_is_taken_over() -> None:
    ids, remote = context.accept("a.B-9_z", f"00-{TRACE}-{SPAN}-01")
    assert remote
    assert ids == context.Context("a.B-9_z", TRACE, SPAN, sampled=True)


@pytest.mark.parametrize("header", [None, "", "x" * 65, "a b", "a\nb", "é", "a\n"])
def test_an_unusable_correlation_id_is_replaced(header: str | None) -> None:
    ids, _ = context.accept(header, None)
    assert re.fullmatch(r"[0-9a-f]{32}", ids.correlation_id)


@pytest.mark.parametrize(
    "header",
    [
        None, "", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-01x",
        f"00-{TRACE}-{SPAN}-01-more",
    ],
)  # fmt: skip
def test_a_malformed_traceparent_starts_a_new_trace(header: str | None) -> None:
    ids, remote = context.accept(None, header)
    assert not remote
    assert ids.trace_id != TRACE


def test_a_future_version_with_more_members_is_understood() -> None:
    ids, remote = context.accept(None, f"01-{TRACE}-{SPAN}-00-more")
    assert remote
    assert not ids.sampled


def test_outgoing_headers_carry_both_ids_and_only_inside_of_work() -> None:
    assert context.outgoing_headers() == {}
    ids, _ = context.accept("abc", f"00-{TRACE}-{SPAN}-01")
    with context.using(ids):
        assert context.outgoing_headers() == {
            "X-Correlation-ID": "abc",
            "traceparent": f"00-{TRACE}-{SPAN}-01",
        }
