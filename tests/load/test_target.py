"""Targets that load tests may use, and the ports and rights that a scenario needs there."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from loadtest import catalogue
from loadtest.target.addresses import (
    SetupFailed,
    Target,
    refuse_unless_allowed,
    refuse_unless_named,
    refuse_unless_there,
    refuse_what_cannot_be_done,
    target_from_environment,
)
from loadtest.target.http import Unreachable

BARE = Target(host="https://orders.example.com")


@pytest.mark.parametrize(
    "host",
    ["http://127.0.0.1:9080", "http://localhost", "http://[::1]:8080", "https://localhost:1"],
)
def test_this_machine_may_always_be_loaded(host: str) -> None:
    refuse_unless_allowed(host, "")


@pytest.mark.parametrize(
    "host",
    [
        "https://orders.example.com",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1@orders.example.com",
        "http://10.0.0.1",
        "http://localhost.example.com",
    ],
)
def test_another_host_may_not_unless_it_is_named(host: str) -> None:
    with pytest.raises(SetupFailed, match="LOADTEST_ALLOWED_HOSTS"):
        refuse_unless_allowed(host, "staging.example.com, other.example.com")


def test_a_host_that_is_named_may_be_loaded_and_its_subdomains_may_not() -> None:
    refuse_unless_allowed("https://Staging.example.com/", "staging.example.com, other")
    with pytest.raises(SetupFailed):
        refuse_unless_allowed("https://a.staging.example.com", "staging.example.com")


@pytest.mark.parametrize("host", ["", "orders", "ftp://localhost", "http://"])
def test_what_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(SetupFailed, match="expected http"):
        refuse_unless_allowed(host, "orders")


@pytest.mark.parametrize(
    ("scenario", "means"),
    [
        ("redis-down", "--by-hand"),
        ("payment-degraded", "LOADTEST_PAYMENT_URL"),
        ("spike", "LOADTEST_INVENTORY_URL"),
        ("poison", "LOADTEST_MANAGEMENT_URL"),
        ("deep-pages", "LOADTEST_DATABASE_URL"),
    ],
)
def test_a_scenario_is_refused_where_its_means_are_missing(scenario: str, means: str) -> None:
    with pytest.raises(SetupFailed, match=means):
        refuse_what_cannot_be_done(catalogue.find(scenario), BARE, by_hand=False)


def test_somebody_who_stops_components_by_hand_is_enough_for_an_outage() -> None:
    refuse_what_cannot_be_done(catalogue.find("redis-down"), BARE, by_hand=True)


def test_what_needs_nothing_special_runs_anywhere() -> None:
    for name in ("smoke", "baseline", "stages", "soak", "breakpoint", "idempotency", "ratelimit"):
        refuse_what_cannot_be_done(catalogue.find(name), BARE, by_hand=False)


def test_a_target_is_described_by_the_environment() -> None:
    target = target_from_environment(
        "http://localhost:8080/",
        {"LOADTEST_PAYMENT_URL": "http://payment", "LOADTEST_DATABASE_URL": ""},
    )
    assert (target.host, target.payment) == ("http://localhost:8080", "http://payment")
    assert target.database is None


@contextmanager
def unwell(times: int) -> Iterator[str]:
    """Serve 503 so many times, then 200."""
    answers = iter([503] * times)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(next(answers, 200))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_host_that_is_not_there_yet_is_waited_for() -> None:
    with unwell(times=2) as host:
        refuse_unless_there(Target(host=host), wait_s=60)


def test_a_host_that_is_not_there_is_refused_at_once_unless_told_to_wait() -> None:
    with unwell(times=1) as host:
        with pytest.raises(Unreachable, match="503"):
            refuse_unless_there(Target(host=host))
        refuse_unless_there(Target(host=host))


def test_remote_workers_must_know_the_run_that_the_database_is_asked_for() -> None:
    target = Target(host="http://localhost", database="postgresql://localhost/orders")
    with pytest.raises(SetupFailed, match="LOADTEST_RUN"):
        refuse_unless_named("", target, workers=2)
    refuse_unless_named("r1", target, workers=2)
    refuse_unless_named("", target, workers=0)
    refuse_unless_named("", BARE, workers=2)


@pytest.mark.parametrize("run", ["a b", "x" * 36, "r%"])
def test_a_name_that_a_payment_token_cannot_carry_is_refused(run: str) -> None:
    with pytest.raises(SetupFailed, match="LOADTEST_RUN"):
        refuse_unless_named(run, BARE, workers=0)
