"""After the load: what is this run's own in ledgers that other runs wrote into, too."""

import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from load.evidence import books, order, purchase
from loadtest import settle
from loadtest.books import Order
from loadtest.purchase import Purchase
from loadtest.target import orders
from loadtest.target.addresses import Target


class Known:
    """The orders of the second run."""

    whole = True
    after = 2

    def read(self, purchases: Sequence[Purchase]) -> dict[int, Order]:
        return {bought.order_ids[0]: order(bought.order_ids[0]) for bought in purchases}


@pytest.fixture
def target() -> Iterator[Target]:
    """Serve the ledgers: two orders of an earlier run, and the one of this run."""
    ledgers = books(order(1), order(2), order(3))
    entries = {"inventory": ledgers.reservations, "payment": ledgers.payments}

    class Ledgers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = msgspec.json.encode(entries[self.path.split("/")[1]])
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Ledgers) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield Target(host=url, inventory=f"{url}/inventory", payment=f"{url}/payment")
        server.shutdown()


def test_what_an_earlier_run_sold_is_not_counted_again(target: Target) -> None:
    read, findings, _ = settle.settle(target, Known(), [purchase(3)], {101: 1}, 5)
    assert [finding for finding in findings if not finding.holds] == []
    assert read.reservations is not None
    assert [reservation.order_id for reservation in read.reservations] == [3]


def test_the_last_order_before_a_run_is_found_in_the_ledgers(target: Target) -> None:
    assert orders.last_order(target) == 3
    assert orders.last_order(Target(host="http://localhost")) == 0
