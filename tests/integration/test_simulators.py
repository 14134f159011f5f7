"""The simulators as processes: contract, every scripted fault, many callers at once, SIGTERM."""

import base64
import contextlib
import hashlib
import hmac
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from devstack.ports import free_port
from upstreams.process import Control, running

KEY = b"0123456789abcdef01234567"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
ONE = {"productId": 5, "quantity": 1}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simulators") / "inventory.log"


@pytest.fixture(scope="module")
def simulators(log: Path) -> Iterator[dict[str, Control]]:
    with (
        running("inventory", free_port(), log=log) as inventory,
        running("payment", free_port()) as payment,
        running("webhooks", free_port(), UPSTREAMS_WEBHOOK_SECRET=SECRET) as webhooks,
    ):
        yield {"inventory": inventory, "payment": payment, "webhooks": webhooks}


@pytest.fixture
def inventory(simulators: dict[str, Control]) -> Control:
    simulators["inventory"].reset()
    return simulators["inventory"]


@pytest.fixture
def payment(simulators: dict[str, Control]) -> Control:
    simulators["payment"].reset()
    return simulators["payment"]


@pytest.fixture
def webhooks(simulators: dict[str, Control]) -> Control:
    simulators["webhooks"].reset()
    return simulators["webhooks"]


class TestInventory:
    """Inventory's answers about availability and reservations."""

    def test_availability_is_about_the_quantity_asked_for(self, inventory: Control) -> None:
        inventory.stock(7, 3)
        assert inventory.send("GET", "/availability/7?quantity=3") == (
            200,
            {"productId": 7, "available": 3, "sufficient": True},
        )
        assert inventory.send("GET", "/availability/7?quantity=4")[1]["sufficient"] is False

    def test_products_have_a_million_units_and_999999_has_none(self, inventory: Control) -> None:
        assert inventory.send("GET", "/availability/1")[1]["available"] == 1_000_000
        assert inventory.send("GET", "/availability/999999")[1]["available"] == 0

    def test_a_reservation_is_made_once(self, inventory: Control) -> None:
        first = inventory.send("PUT", "/reservations/1", {"productId": 5, "quantity": 2})
        repetition = inventory.send("PUT", "/reservations/1", {"productId": 5, "quantity": 2})
        assert (first[0], repetition[0]) == (201, 200)
        assert first[1] == repetition[1]
        assert inventory.send("GET", "/availability/5")[1]["available"] == 999_998

    def test_another_content_under_the_same_order_is_a_conflict(self, inventory: Control) -> None:
        inventory.send("PUT", "/reservations/1", ONE)
        status, answer = inventory.send("PUT", "/reservations/1", {"productId": 5, "quantity": 2})
        assert (status, answer["error"]) == (409, "conflict")

    def test_out_of_stock_leaves_nothing_behind(self, inventory: Control) -> None:
        status, answer = inventory.send(
            "PUT", "/reservations/1", {"productId": 999_999, "quantity": 1}
        )
        assert (status, answer["error"]) == (409, "out_of_stock")
        assert inventory.ledger() == []

    @pytest.mark.parametrize(("end", "other"), [("commit", "release"), ("release", "commit")])
    def test_a_reservation_ends_once_and_in_one_way(
        self, inventory: Control, end: str, other: str
    ) -> None:
        inventory.send("PUT", "/reservations/1", ONE)
        first = inventory.send("POST", f"/reservations/1/{end}")
        assert first[0] == 200
        assert inventory.send("POST", f"/reservations/1/{end}") == first
        assert inventory.send("POST", f"/reservations/1/{other}")[0] == 409
        available = 999_999 if end == "commit" else 1_000_000
        assert inventory.send("GET", "/availability/5")[1]["available"] == available

    def test_an_unknown_reservation_cannot_be_committed_or_returned(
        self, inventory: Control
    ) -> None:
        assert inventory.send("POST", "/reservations/1/commit")[0] == 404
        assert inventory.send("POST", "/reservations/1/return")[0] == 404

    def test_a_release_that_comes_before_its_reservation_is_remembered(
        self, inventory: Control
    ) -> None:
        first = inventory.send("POST", "/reservations/k-1/release", {"orderId": 1})
        assert first[0] == 200
        assert inventory.send("POST", "/reservations/k-1/release", {"orderId": 1}) == first
        status, answer_late = inventory.send("PUT", "/reservations/k-1", {**ONE, "orderId": 1})
        assert (status, answer_late["status"], answer_late["quantity"]) == (200, "released", 1)
        assert inventory.send("GET", "/availability/5")[1]["available"] == 1_000_000
        [row] = inventory.ledger()
        assert (row["orderId"], row["status"], row["quantity"]) == (1, "released", 0)

    def test_committed_stock_is_returned_once(self, inventory: Control) -> None:
        inventory.send("PUT", "/reservations/1", ONE)
        answer_early = inventory.send("POST", "/reservations/1/return")
        assert (answer_early[0], answer_early[1]["error"]) == (409, "not_committed")
        inventory.send("POST", "/reservations/1/commit")
        first = inventory.send("POST", "/reservations/1/return")
        assert (first[0], first[1]["status"]) == (200, "returned")
        assert inventory.send("POST", "/reservations/1/return") == first
        assert inventory.send("GET", "/availability/5")[1]["available"] == 1_000_000
        for other in ("commit", "release"):
            answer = inventory.send("POST", f"/reservations/1/{other}")
            assert (answer[0], answer[1]["error"]) == (409, "already_returned")

    def test_a_key_that_is_no_order_id_needs_the_order_named(self, inventory: Control) -> None:
        assert inventory.send("PUT", "/reservations/k-1", ONE)[0] == 400
        assert inventory.send("POST", "/reservations/k-1/release")[0] == 400
        assert inventory.send("PUT", "/reservations/k-1", {**ONE, "orderId": 7})[0] == 201
        assert inventory.send("PUT", "/reservations/k-2", {**ONE, "orderId": 7})[0] == 201
        assert [(row["orderId"], row["reservationKey"]) for row in inventory.ledger()] == [
            (7, "k-1"), (7, "k-2"),
        ]  # fmt: skip

    def test_a_key_belongs_to_one_order(self, inventory: Control) -> None:
        inventory.send("PUT", "/reservations/k-1", {**ONE, "orderId": 7})
        other = inventory.send("PUT", "/reservations/k-1", {**ONE, "orderId": 8})
        assert (other[0], other[1]["error"]) == (409, "conflict")
        answer = inventory.send("POST", "/reservations/k-1/commit", {"orderId": 8})
        assert (answer[0], answer[1]["error"]) == (409, "conflict")

    def test_fifty_callers_never_get_more_than_ten_units(self, inventory: Control) -> None:
        inventory.stock(7, 10)

        def reserve(order_id: int) -> int:
            body = {"productId": 7, "quantity": 1}
            return inventory.send("PUT", f"/reservations/{order_id}", body)[0]

        statuses = at_once(reserve, 50)
        assert (statuses.count(201), statuses.count(409)) == (10, 40)
        assert sum(row["quantity"] for row in inventory.ledger()) == 10
        assert inventory.send("GET", "/availability/7")[1]["available"] == 0

    def test_the_ledger_has_a_row_per_order(self, inventory: Control) -> None:
        inventory.send("PUT", "/reservations/1", ONE)
        inventory.send("PUT", "/reservations/2", ONE)
        inventory.send("POST", "/reservations/2/release")
        rows = inventory.ledger()
        assert [(row["orderId"], row["status"]) for row in rows] == [
            (1, "reserved"),
            (2, "released"),
        ]
        members = {"orderId", "reservationKey", "productId", "quantity", "status", "at"}
        assert set(rows[0]) == members

    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"[]", {"productId": 5}, {**ONE, "x": 1}, {"productId": 5, "quantity": 0},
         {"productId": 5, "quantity": 1.5}, {"productId": "5", "quantity": 1}],
    )  # fmt: skip
    def test_a_bad_body_is_refused(self, inventory: Control, body: object) -> None:
        assert inventory.send("PUT", "/reservations/1", body)[0] == 400
        assert inventory.ledger() == []

    def test_a_chunked_body_works_and_an_endless_one_is_refused(self, inventory: Control) -> None:
        assert chunked(inventory, msgspec.json.encode(ONE)) == 201
        assert chunked(inventory, b" " * 70_000) == 413

    def test_ids_of_the_caller_are_in_the_log_line(self, inventory: Control, log: Path) -> None:
        trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
        headers = {
            "X-Correlation-ID": "corr-42",
            "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01",
        }
        inventory.send("PUT", "/reservations/1", ONE, headers)
        lines = [msgspec.json.decode(line) for line in log.read_text().splitlines()]
        (line,) = [line for line in lines if line.get("correlationId") == "corr-42"]
        assert (line["traceId"], line["path"], line["status"]) == (trace_id, "/reservations/1", 201)


class TestPayment:
    """Payment's answers about captures and refunds."""

    BODY = b'{"orderId":1,"amount":19.90,"paymentMethod":"tok_1"}'

    def test_an_attempt_is_captured_once(self, payment: Control) -> None:
        answers = [payment.send("PUT", "/payments/a1", self.BODY) for _ in range(3)]
        captured = {
            "attemptId": "a1", "orderId": 1, "status": "captured", "amount": Decimal("19.90")
        }  # fmt: skip
        assert answers == [(200, captured)] * 3
        assert payment.send("GET", "/payments/a1") == (200, captured)
        (row,) = payment.ledger()
        assert (row["kind"], row["calls"], str(row["amount"])) == ("capture", 3, "19.90")
        assert set(row) == {"attemptId", "orderId", "kind", "amount", "status", "calls", "at"}

    def test_fifty_equal_captures_at_once_are_one(self, payment: Control) -> None:
        statuses = at_once(lambda _: payment.send("PUT", "/payments/a1", self.BODY)[0], 50)
        assert statuses == [200] * 50
        (row,) = payment.ledger()
        assert row["calls"] == 50

    def test_the_same_amount_may_be_written_differently(self, payment: Control) -> None:
        payment.send("PUT", "/payments/a1", self.BODY)
        body = b'{"paymentMethod":"tok_1", "amount":1.99e1, "orderId":1}'
        status, answer = payment.send("PUT", "/payments/a1", body)
        assert (status, str(answer["amount"])) == (200, "19.90")

    def test_another_content_under_the_same_attempt_is_a_conflict(self, payment: Control) -> None:
        payment.send("PUT", "/payments/a1", self.BODY)
        other = self.BODY.replace(b"19.90", b"19.91")
        assert payment.send("PUT", "/payments/a1", other)[1]["error"] == "conflict"

    def test_a_method_that_begins_with_decline_is_declined_for_good(self, payment: Control) -> None:
        body = self.BODY.replace(b"tok_1", b"decline-me")
        assert payment.send("PUT", "/payments/a1", body)[1]["status"] == "declined"
        assert payment.send("GET", "/payments/a1")[1]["status"] == "declined"

    def test_a_scripted_decline_is_remembered(self, payment: Control) -> None:
        payment.faults(declineRatio=1)
        assert payment.send("PUT", "/payments/a1", self.BODY)[1]["status"] == "declined"
        payment.faults()
        assert payment.send("PUT", "/payments/a1", self.BODY)[1]["status"] == "declined"

    def test_an_unknown_attempt_is_not_found(self, payment: Control) -> None:
        assert payment.send("GET", "/payments/a1")[0] == 404

    def test_a_refund_is_made_once_and_never_above_its_capture(self, payment: Control) -> None:
        payment.send("PUT", "/payments/a1", self.BODY)
        body = b'{"captureId":"a1","orderId":1,"amount":19.90}'
        assert payment.send("PUT", "/refunds/r1", body)[1]["status"] == "refunded"
        assert payment.send("PUT", "/refunds/r1", body)[0] == 200
        more = b'{"captureId":"a1","orderId":1,"amount":0.01}'
        assert payment.send("PUT", "/refunds/r2", more)[1]["error"] == "exceeds_capture"
        assert [(row["kind"], row["calls"]) for row in payment.ledger()] == [
            ("capture", 1),
            ("refund", 2),
        ]

    def test_a_declined_refund_stays_declined_and_takes_nothing_of_the_capture(
        self, payment: Control
    ) -> None:
        payment.send("PUT", "/payments/a1", self.BODY)
        body = b'{"captureId":"a1","orderId":1,"amount":19.90}'
        payment.faults(refundDeclineRatio=1)
        assert payment.send("PUT", "/refunds/r1", body)[1]["status"] == "declined"
        payment.faults()
        assert payment.send("PUT", "/refunds/r1", body)[1]["status"] == "declined"
        assert payment.send("PUT", "/refunds/r2", body)[1]["status"] == "refunded"

    def test_a_refund_needs_money_that_was_taken(self, payment: Control) -> None:
        body = b'{"captureId":"a1","orderId":1,"amount":19.90}'
        assert payment.send("PUT", "/refunds/r1", body)[0] == 404
        payment.send("PUT", "/payments/a1", self.BODY.replace(b"tok_1", b"decline"))
        assert payment.send("PUT", "/refunds/r1", body)[1]["error"] == "not_captured"

    @pytest.mark.parametrize(
        "amount", [b'"19.90"', b"0", b"-1", b"0.001", b"1e400", b"null", b"true", b"NaN"]
    )
    def test_an_amount_that_is_no_money_is_refused(self, payment: Control, amount: bytes) -> None:
        body = self.BODY.replace(b"19.90", amount)
        assert payment.send("PUT", "/payments/a1", body)[0] == 400
        assert payment.ledger() == []


class TestFaults:
    """Faults that the control API switches on."""

    def test_they_are_off_at_the_start_and_put_replaces_all(self, inventory: Control) -> None:
        faults = {
            "latencyMs": 0, "jitterMs": 0, "errorRatio": 0, "errorStatus": 503, "hangRatio": 0,
            "dropReplyRatio": 0, "declineRatio": 0, "refundDeclineRatio": 0,
        }  # fmt: skip
        assert inventory.send("GET", "/control/faults")[1] == faults
        inventory.faults(latencyMs=1, errorRatio=0.5)
        inventory.faults(errorStatus=500)
        assert inventory.send("GET", "/control/faults")[1] == {**faults, "errorStatus": 500}

    @pytest.mark.parametrize(
        "fault",
        [{"latency": 1}, {"latencyMs": -1}, {"latencyMs": 60_001}, {"errorRatio": 1.1},
         {"errorStatus": 200}, {"hangRatio": "1"}, {"dropReplyRatio": None}, []],
    )  # fmt: skip
    def test_a_bad_fault_is_refused_and_changes_nothing(
        self, inventory: Control, fault: object
    ) -> None:
        faults_before = inventory.send("GET", "/control/faults")
        assert inventory.send("PUT", "/control/faults", fault)[0] == 400
        assert inventory.send("GET", "/control/faults") == faults_before

    @pytest.mark.parametrize("level", [{}, {"available": -1}, {"available": 1, "x": 1}])
    def test_a_bad_stock_level_is_refused(self, inventory: Control, level: object) -> None:
        assert inventory.send("PUT", "/control/stock/5", level)[0] == 400

    def test_errors_do_nothing_and_spare_control_and_probe(self, inventory: Control) -> None:
        inventory.faults(errorRatio=1, errorStatus=500)
        assert inventory.send("PUT", "/reservations/1", ONE)[0] == 500
        assert inventory.send("GET", "/livez")[0] == 200
        assert inventory.ledger() == []

    def test_a_dropped_reply_is_work_done_and_no_answer(self, inventory: Control) -> None:
        inventory.faults(dropReplyRatio=1)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            inventory.send("PUT", "/reservations/1", ONE)
        inventory.faults()
        assert [row["orderId"] for row in inventory.ledger()] == [1]
        assert inventory.send("PUT", "/reservations/1", ONE)[0] == 200

    def test_a_hang_gives_no_answer_and_does_no_work(self, inventory: Control) -> None:
        inventory.faults(hangRatio=1)
        connection = http.client.HTTPConnection(inventory.url.removeprefix("http://"), timeout=0.3)
        with contextlib.closing(connection):
            connection.request("PUT", "/reservations/1", msgspec.json.encode(ONE))
            with pytest.raises(TimeoutError):
                connection.getresponse()
        assert inventory.ledger() == []

    def test_latency_delays_many_at_once(self, inventory: Control) -> None:
        inventory.faults(latencyMs=300, jitterMs=100)
        started = time.monotonic()
        statuses = at_once(lambda _: inventory.send("GET", "/availability/5")[0], 64)
        assert statuses == [200] * 64
        assert 0.3 <= time.monotonic() - started < 15  # one after another would be 19 s

    def test_control_answers_while_every_thread_hangs(self) -> None:
        with (
            running("inventory", free_port(), UPSTREAMS_THREADS="64") as small,
            contextlib.ExitStack() as hanging,
        ):
            small.faults(hangRatio=1)
            for _ in range(100):
                hanging.enter_context(contextlib.closing(ask(small)))
            assert small.send("GET", "/control/faults")[1]["hangRatio"] == 1
            small.reset()


class TestWebhooks:
    """Deliveries and their signatures."""

    BODY = b'{"type":"order.completed","data":{"orderId":1}}'

    def test_a_signed_delivery_is_recorded_once_per_id(self, webhooks: Control) -> None:
        headers = {**signed("msg_1", self.BODY), "X-Correlation-ID": "corr-1"}
        assert webhooks.send("POST", "/webhooks", self.BODY, headers) == (204, None)
        assert webhooks.send("POST", "/webhooks", self.BODY, headers) == (204, None)
        (row,) = webhooks.deliveries()
        assert (row["webhookId"], row["calls"], row["correlationId"]) == ("msg_1", 2, "corr-1")
        assert row["payload"] == msgspec.json.decode(self.BODY)

    @pytest.mark.parametrize(
        ("change", "status"),
        [
            ({"webhook-signature": "v1,AAAA"}, 401),
            ({"webhook-signature": ""}, 401),
            ({"webhook-signature": "v1,é"}, 401),
            ({"webhook-id": "msg_2"}, 401),
            ({"webhook-timestamp": "1"}, 401),
            ({"webhook-timestamp": "soon"}, 400),
        ],
    )
    def test_anything_else_is_refused(
        self, webhooks: Control, change: dict[str, str], status: int
    ) -> None:
        headers = {**signed("msg_1", self.BODY), **change}
        assert webhooks.send("POST", "/webhooks", self.BODY, headers)[0] == status
        assert webhooks.deliveries() == []

    def test_an_old_delivery_is_refused_and_a_second_key_is_tried(self, webhooks: Control) -> None:
        old = signed("msg_1", self.BODY, at_s=int(time.time()) - 301)
        assert webhooks.send("POST", "/webhooks", self.BODY, old)[1]["error"] == "stale_timestamp"
        headers = signed("msg_1", self.BODY)
        headers["webhook-signature"] = f"v1,AAAA v2,x {headers['webhook-signature']}"
        assert webhooks.send("POST", "/webhooks", self.BODY, headers)[0] == 204

    def test_faults_work_here_too(self, webhooks: Control) -> None:
        webhooks.faults(errorRatio=1, errorStatus=500)
        headers = signed("msg_1", self.BODY)
        assert webhooks.send("POST", "/webhooks", self.BODY, headers)[0] == 500
        assert webhooks.deliveries() == []


class TestProcess:
    """Start and stop of a simulator."""

    @pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_cleanly_though_requests_hang(self, sig: signal.Signals) -> None:
        port = free_port()
        environ = {**os.environ, "UPSTREAMS_PORT": str(port), "PYTHONPATH": source_root()}
        child = subprocess.Popen([sys.executable, "-m", "upstreams", "inventory"], env=environ)
        control = Control(f"http://127.0.0.1:{port}")
        try:
            wait_until_up(control, child)
            control.faults(hangRatio=1)
            with contextlib.closing(ask(control)):
                time.sleep(0.1)
                child.send_signal(sig)
                assert child.wait(60) == 0
        finally:
            child.kill()
            child.wait()

    def test_a_bad_setting_ends_it_at_once_and_is_named(self) -> None:
        process = subprocess.run(
            [sys.executable, "-m", "upstreams", "webhooks"],
            env={**os.environ, "PYTHONPATH": source_root(), "UPSTREAMS_WEBHOOK_SECRET": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert process.returncode == 2
        assert "webhooks: UPSTREAMS_WEBHOOK_SECRET is wrong" in process.stderr


def at_once(work: Any, count: int) -> list[int]:
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(work, range(1, count + 1)))


def signed(webhook_id: str, body: bytes, at_s: int | None = None) -> dict[str, str]:
    """Sign after Standard Webhooks, written here a second time on purpose."""
    stamp = str(at_s or int(time.time()))
    mac = hmac.new(KEY, f"{webhook_id}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


def chunked(control: Control, body: bytes) -> int:
    connection = http.client.HTTPConnection(control.url.removeprefix("http://"), timeout=30)
    with contextlib.closing(connection):
        connection.request("PUT", "/reservations/1", iter([body]), encode_chunked=True)
        return connection.getresponse().status


def ask(control: Control) -> socket.socket:
    """Send a request and do not wait for the answer."""
    host, port = control.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)))
    sock.sendall(b"GET /availability/5 HTTP/1.1\r\nHost: x\r\n\r\n")
    return sock


def wait_until_up(control: Control, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        with contextlib.suppress(OSError):
            control.send("GET", "/livez")
            return
        time.sleep(0.05)
    raise AssertionError("the simulator did not start")


def source_root() -> str:
    return str(Path(sys.modules["upstreams"].__path__[0]).parent)
