"""Three RabbitMQ nodes, one of them down, frozen or cut off, with messages going through."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psycopg
import pytest
import requests

from devstack.servers.rabbitmq import speaks_amqp
from integration import rabbitmq_cluster
from integration.broker import body, new_properties, prepare
from integration.handles import Database, Vhost
from integration.rabbitmq_cluster import Cluster, Node
from integration.serving import eventually
from orders.domain import events
from orders.messaging.consumer import Consumer, Limits
from orders.messaging.dead_letter_queue import opened
from orders.messaging.envelope import Message
from orders.messaging.publisher import Outgoing, Publisher, PublishOutcome
from orders.relay.queues import QueueGauges
from orders.relay.relay import Relay
from orders.settings import DatabaseSettings, MessagingSettings, RelaySettings
from orderservice_topology import topology

pytestmark = pytest.mark.failover

QUEUE = "order-processing"
WITHIN_S = 60.0  # a busy machine included; what is measured is printed


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder: Path = tmp_path_factory.mktemp("cluster")
    with rabbitmq_cluster.cluster(folder, "only-for-tests") as cluster:
        first = cluster.nodes[0].broker
        prepare(Vhost("/", first.url(), first.management_url))
        eventually(lambda: cluster.complete(QUEUE), WITHIN_S)
        yield cluster


def say(text: str) -> None:
    """Print a figure of the run; shown with `-s`, or when the test fails."""
    sys.stdout.write(f"{text}\n")


class Load:
    """Writes outbox rows at a rate, has them relayed and consumed, and counts both ends."""

    def __init__(self, database: Database, cluster: Cluster) -> None:
        settings = MessagingSettings(url=cluster.url, heartbeat_s=5)
        self._database = database
        self._publisher = Publisher(settings, "test relay", confirm_timeout_s=5)
        self._relay = Relay(DatabaseSettings(url=database.url), self._publisher, RelaySettings())
        limits = Limits(prefetch=20, max_tries=8, drain_s=5)
        self._consumer = Consumer(settings, QUEUE, self._handle, limits)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._relay.run), threading.Thread(target=self._write),
        ]  # fmt: skip
        self.written = 0
        self.seen: set[int] = set()
        self.handled = 0

    def __enter__(self) -> Self:
        self._publisher.start()
        self._consumer.start()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads[1].join()
        self._relay.stop()
        self._threads[0].join()
        self._consumer.stop()
        self._publisher.close()

    def goes_on(self) -> float:
        """Wait until messages written from now on arrive; return for how long, in seconds."""
        started_s, first = time.monotonic(), self.written + 1
        eventually(lambda: first + 20 in self.seen, WITHIN_S)
        return time.monotonic() - started_s

    def end(self) -> None:
        """Write no more, and wait until every message has arrived."""
        self._stop.set()
        self._threads[1].join()
        eventually(lambda: len(self.seen) == self.written, WITHIN_S)
        eventually(lambda: self._left() == 0, WITHIN_S)
        assert self.seen == set(range(1, self.written + 1))

    def _handle(self, message: Message) -> None:
        self.handled += 1
        self.seen.add(message.body.order_id)

    def _write(self) -> None:
        with psycopg.connect(self._database.url, autocommit=True) as session:
            while not self._stop.wait(0.02):
                order_id = self.written + 1
                session.execute(
                    "INSERT INTO outbox (aggregateid, type, payload) VALUES (%s, %s, %s::jsonb)",
                    (str(order_id), events.CREATED, body(order_id).decode()),
                )
                self.written = order_id

    def _left(self) -> int:
        with psycopg.connect(self._database.url, autocommit=True) as session:
            row = session.execute("SELECT count(*) FROM outbox").fetchone()
        assert row is not None
        return int(row[0])


@contextmanager
def loaded(database: Database, three: Cluster) -> Iterator[Load]:
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute("TRUNCATE outbox")
    eventually(lambda: three.complete(QUEUE), 2 * WITHIN_S)
    try:
        with Load(database, three) as load:
            load.goes_on()
            yield load
    finally:  # whatever a test that failed left as it was
        three.links.heal()
        for node in three.nodes:
            node.program.resume()
            if not node.program.running():
                node.program.start()


def settle(three: Cluster) -> None:
    """Wait until the nodes have settled, as one does before the next node of a rolling restart.

    Nodes that have only just met again may lose each other once more, or be left with queues that
    have no leader, when a third one dies; RabbitMQ shows nothing else to wait for.
    """
    eventually(lambda: three.complete(QUEUE), 2 * WITHIN_S)
    time.sleep(2 * rabbitmq_cluster.TICK_S)
    eventually(lambda: three.complete(QUEUE), 2 * WITHIN_S)


def test_each_node_is_killed_in_turn_and_no_message_is_lost(
    database: Database, three: Cluster
) -> None:
    with loaded(database, three) as load:
        for number, node in enumerate(three.nodes):
            node.program.kill()
            say(f"node {number} killed: messages arrive again after {load.goes_on():.1f} s")
            node.program.start()
            settle(three)
        load.end()
        say(f"{load.written} messages, {load.handled - load.written} of them handled twice")


def test_a_frozen_node_is_left_alone_and_takes_part_again(
    database: Database, three: Cluster
) -> None:
    """Its peers take it for dead; when it wakes, it sees a minority and joins them again."""
    with loaded(database, three) as load:
        for number, node in enumerate(three.nodes):
            node.program.pause()
            say(f"node {number} frozen: messages arrive again after {load.goes_on():.1f} s")
            time.sleep(2 * rabbitmq_cluster.TICK_S)  # its peers have given it up
            load.goes_on()
            node.program.resume()
            eventually(lambda: three.complete(QUEUE), 2 * WITHIN_S)
            load.goes_on()
        load.end()
        say(f"{load.written} messages, {load.handled - load.written} of them handled twice")


def listens(node: Node) -> bool:
    """Return whether a node takes part: one that paused itself closes its ports."""
    try:
        return speaks_amqp(node.broker.amqp_port)
    except OSError:
        return False


def test_a_node_that_is_cut_off_pauses_and_takes_part_again(
    database: Database, three: Cluster
) -> None:
    """Its process runs and its clients reach it; only the others do not."""
    with loaded(database, three) as load:
        for number, node in enumerate(three.nodes):
            three.links.isolate(number)
            say(f"node {number} cut off: messages arrive again after {load.goes_on():.1f} s")
            eventually(lambda: not listens(node), WITHIN_S)  # noqa: B023 at once
            load.goes_on()
            three.links.heal()
            eventually(lambda: three.complete(QUEUE), 2 * WITHIN_S)
            load.goes_on()
        load.end()
        say(f"{load.written} messages, {load.handled - load.written} of them handled twice")


def test_one_broken_link_between_two_nodes_costs_time_only(
    database: Database, three: Cluster
) -> None:
    """RabbitMQ 3 pauses both ends of it, which leaves no majority: messages wait for the link."""
    with loaded(database, three) as load:
        three.links.cut(0, 1)
        eventually(lambda: not any(listens(node) for node in three.nodes[:2]), WITHIN_S)
        write_count = load.written
        three.links.heal()
        eventually(lambda: three.complete(QUEUE), 2 * WITHIN_S)
        eventually(lambda: len(load.seen) >= write_count, WITHIN_S)
        say(f"link 0-1 whole again: messages arrive after {load.goes_on():.1f} s")
        load.end()


def test_three_nodes_apart_take_nothing_and_lose_nothing(
    database: Database, three: Cluster
) -> None:
    with loaded(database, three) as load:
        three.links.isolate(0)
        three.links.isolate(1)
        eventually(lambda: not any(listens(node) for node in three.nodes), WITHIN_S)
        write_count = load.written
        three.links.heal()
        eventually(lambda: three.complete(QUEUE), 2 * WITHIN_S)
        eventually(lambda: len(load.seen) >= write_count, WITHIN_S)
        load.end()


def test_without_a_majority_messages_wait_and_nothing_is_lost(
    database: Database, three: Cluster
) -> None:
    with loaded(database, three) as load:
        for node in three.nodes[1:]:
            node.program.kill()
        count_before = len(load.seen)
        time.sleep(10)
        write_count = load.written
        assert len(load.seen) < count_before + 100, "a minority confirms nothing"
        for node in three.nodes[1:]:
            node.program.start()
        eventually(lambda: three.complete(QUEUE), 2 * WITHIN_S)
        eventually(lambda: len(load.seen) >= write_count, WITHIN_S)
        load.end()


def test_tools_and_gauges_find_a_node_that_lives(three: Cluster) -> None:
    settings = MessagingSettings(url=three.url)
    settle(three)
    killed: Node = three.nodes[0]
    killed.program.kill()
    try:
        for _ in range(6):  # the order of the hosts is drawn each time
            with opened(settings, topology.dead_queue(QUEUE)) as dead_letters:
                assert list(dead_letters.letters()) == []
        gauges = QueueGauges(settings, every_s=0.2)
        gauges.start()
        publisher = Publisher(settings, "test")
        publisher.start()
        eventually(lambda: publisher.problem is None, WITHIN_S)
        copy = Outgoing("", "orders.unrouted", new_properties(), b"{}")
        assert publisher.deliver(copy) is PublishOutcome.CONFIRMED
        publisher.close()
        gauges.close()
    finally:
        killed.program.start()
        eventually(lambda: three.complete(QUEUE), 2 * WITHIN_S)


def test_the_minority_side_serves_nobody(three: Cluster) -> None:
    """A node that is cut off from the others pauses itself: no two halves take messages."""
    for node in three.nodes[1:]:
        node.program.kill()
    first = three.nodes[0].broker
    try:

        def refuses() -> bool:
            try:
                requests.get(f"{first.management_url}/api/overview", timeout=2)
            except requests.RequestException:
                return True
            return False

        eventually(refuses, WITHIN_S)
    finally:
        for node in three.nodes[1:]:
            node.program.start()
        eventually(lambda: three.complete(QUEUE), 2 * WITHIN_S)
