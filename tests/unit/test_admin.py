"""The answers of the admin port, without a socket: probes, health, metrics."""

import re
import socket
import threading
import time
from collections.abc import Callable

import msgspec
import psycopg
import pytest
from prometheus_client import CollectorRegistry, Counter

from orders.admin import Admin
from orders.errors import Transient
from orders.probes import FRESH_S, Check, Checks, ProcessState, reason


def fail_with(error: Exception) -> Callable[[], None]:
    def test() -> None:
        raise error

    return test


def passes() -> None:
    pass


def started() -> ProcessState:
    state = ProcessState(stalled_after_s=10)
    state.start()
    return state


def ask(target: str, *checks: Check, state: ProcessState | None = None) -> tuple[int, str]:
    answer = Admin(Checks(checks), state or started()).answer(target)
    return answer.status, answer.body.decode()


def test_a_probe_that_passes_says_ok() -> None:
    assert ask("/readyz", Check("postgres", passes)) == (200, "ok\n")


def test_verbose_names_every_check() -> None:
    checks = Check("postgres", passes), Check("redis", passes)
    status, text = ask("/readyz?verbose", *checks)
    assert status == 200
    assert text == (
        "[+]started ok\n[+]progress ok\n[+]postgres ok\n[+]redis ok\nreadyz check passed\n"
    )


def test_a_probe_that_fails_names_the_cause_unasked() -> None:
    refusal = fail_with(ConnectionRefusedError(111, "10.0.0.7:5672 as guest"))
    status, text = ask("/readyz", Check("rabbitmq", refusal))
    assert status == 503
    assert text.endswith("[-]rabbitmq failed: connection refused\nreadyz check failed\n")


def test_a_failure_that_is_forgiven_shows_but_leaves_the_pod_ready() -> None:
    refusal = fail_with(TimeoutError())
    status, text = ask("/readyz?verbose", Check("postgres", refusal, forgiven=lambda: True))
    assert status == 200
    assert "[-]postgres failed: timed out (tolerated for a short time)\n" in text
    assert ask("/readyz", Check("postgres", refusal, forgiven=lambda: False))[0] == 503
    assert ask("/health", Check("postgres", refusal, forgiven=lambda: True))[0] == 503


def test_what_is_not_critical_shows_but_does_not_decide() -> None:
    checks = Check("postgres", passes), Check("redis", fail_with(TimeoutError()), critical=False)
    status, text = ask("/readyz?verbose", *checks)
    assert (status, "[-]redis failed: timed out (not critical)" in text) == (200, True)
    status, text = ask("/health", *checks)
    assert (status, msgspec.json.decode(text)["status"]) == (200, "Degraded")


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (Check("postgres", passes), (200, "Healthy", "Healthy")),
        (Check("postgres", fail_with(TimeoutError())), (503, "Unhealthy", "Unhealthy")),
    ],
)
def test_health_is_unhealthy_only_without_something_critical(
    check: Check, expected: tuple[int, str, str]
) -> None:
    status, text = ask("/health", check)
    body = msgspec.json.decode(text)
    assert (status, body["status"], body["checks"]["postgres"]["status"]) == expected


def test_a_start_is_passed_once_and_for_all() -> None:
    state = ProcessState(stalled_after_s=10)
    assert ask("/startupz", state=state)[0] == ask("/readyz", state=state)[0] == 503
    state.start()
    assert ask("/startupz", state=state)[0] == ask("/readyz", state=state)[0] == 200


def test_draining_fails_readiness_at_once_and_asks_no_dependency() -> None:
    state = started()
    state.drain()
    calls: list[int] = []
    status, text = ask("/readyz", Check("postgres", lambda: calls.append(1)), state=state)
    assert (status, calls) == (503, [])
    assert "shutting down" in text
    assert ask("/livez", state=state)[0] == 200


def test_a_process_without_progress_is_not_alive() -> None:
    state = ProcessState(stalled_after_s=0.05)
    state.start()
    time.sleep(0.1)
    status, text = ask("/livez", state=state)
    assert status == 503
    assert re.fullmatch(r"\[-\]progress failed: no progress for \d+ s\nlivez check failed\n", text)

    def lives() -> bool:
        state.beat()
        return ask("/livez", state=state)[0] == 200

    assert_within(60, lives)


def test_no_dependency_can_fail_liveness() -> None:
    assert ask("/livez", Check("postgres", fail_with(OSError())))[0] == 200


def test_checks_run_side_by_side_within_their_budget() -> None:
    checks = [Check(f"slow{number}", lambda: time.sleep(20), budget_s=0.1) for number in range(5)]
    began_at = time.monotonic()
    assert {result.reason for result in Checks(checks).results()} == {"timed out"}
    assert time.monotonic() - began_at < 10


def test_many_probes_at_once_ask_a_dependency_once() -> None:
    calls: list[int] = []

    def slow() -> None:
        calls.append(1)
        time.sleep(0.05)

    checks = Checks([Check("postgres", slow)], fresh_s=60)
    probes = [threading.Thread(target=checks.results) for _ in range(20)]
    for probe in probes:
        probe.start()
    for probe in probes:
        probe.join()
    assert calls == [1]


def test_a_dependency_that_hangs_costs_one_thread() -> None:
    release = threading.Event()
    calls: list[int] = []

    def hang() -> None:
        calls.append(1)
        release.wait(60)

    checks = Checks([Check("postgres", hang, budget_s=0.01)], fresh_s=0)
    assert [checks.results()[0].passed for _ in range(10)] == [False] * 10
    assert calls == [1]
    release.set()
    assert_within(60, lambda: checks.results()[0].passed)


def assert_within(seconds: float, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_result_is_shared_for_a_second_at_most() -> None:
    assert FRESH_S <= 1


def test_a_reason_tells_no_address_user_or_query() -> None:
    secret = psycopg.OperationalError('connection to server at "10.0.0.7", user "orders" failed')
    assert reason(secret) == "OperationalError"
    secret.__cause__ = ConnectionRefusedError(111, "10.0.0.7")
    assert reason(secret) == "connection refused"
    assert reason(TimeoutError("10.0.0.7")) == "timed out"
    assert reason(Transient("the replica is 7 s behind")) == "the replica is 7 s behind"


def test_a_name_that_cannot_be_resolved_has_a_reason() -> None:
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert reason(error) == "unknown host"


def test_metrics_are_those_of_the_registry_in_the_format_asked_for() -> None:
    registry = CollectorRegistry()
    Counter("made_total", "Made.", registry=registry).inc()
    admin = Admin(Checks([]), started(), registry)
    plain = admin.answer("/metrics")
    assert plain.content_type.startswith("text/plain")
    assert b"made_total 1.0" in plain.body
    new = admin.answer("/metrics", "application/openmetrics-text; version=1.0.0")
    assert new.content_type.startswith("application/openmetrics-text")
    assert new.body.endswith(b"# EOF\n")


def test_an_unknown_path_lists_the_known_ones() -> None:
    status, text = ask("/")
    assert (status, text) == (404, "Try /livez, /readyz, /startupz, /health, /metrics.\n")
