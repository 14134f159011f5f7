"""The figures of a run that come from the books, and the bounds of every scenario on them."""

from load.evidence import books, order, purchase
from loadtest import catalogue
from loadtest.outcome import figures


def test_being_refused_is_told_apart_from_finding_nothing_left() -> None:
    refusals = [purchase(n, order_ids=[], refused=400, product=n) for n in (101, 777, 777)]
    counts = figures(refusals, books(), {777: 100})
    assert counts["orders.refused"] == 1
    assert counts["orders.sold_out"] == 2


def test_a_failed_order_is_wrong_unless_it_was_to_be_declined_or_is_of_what_sells_out() -> None:
    failed = [
        order(1, status="Failed"),
        order(2, status="Failed", payment_method="decline-run-2"),
        order(3, status="Failed", payment_method=None),
        order(4, status="Failed", product_id=777),
    ]
    bought = [purchase(1), purchase(2, declined=True), purchase(3, declined=True), purchase(4)]
    assert figures(bought, books(*failed), {777: 1})["orders.undeclined_failed"] == 1


def test_without_an_end_there_is_no_time_to_it_so_that_its_threshold_is_breached() -> None:
    assert "completion.p99_s" not in figures([purchase(1)], books(order(1, status="Pending")))
    assert figures([purchase(1)], books(order(1)))["completion.p99_s"] == 1


def test_refusals_and_nonsense_are_bounded_in_every_scenario() -> None:
    for scenario in catalogue.every():
        bounded = {threshold.figure for threshold in scenario.thresholds if threshold.limit == 0}
        assert "client.wrong" in bounded, scenario.name
        # To refuse what it cannot take is what an overloaded service has to do.
        assert scenario.name == "overload" or "orders.refused" in bounded, scenario.name
        if scenario.name not in ("payment-degraded", "deep-pages"):
            assert "orders.undeclined_failed" in bounded, scenario.name
