"""The api's admin process: probes and metrics of gunicorn, also while its workers are busy."""

import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from integration.serving import Served, eventually, request, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("admin")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Served]:
    with serving(folder, workers=2) as running:
        yield running


def test_probes_answer_while_every_worker_is_busy(server: Served) -> None:
    busy = [server.connect() for _ in range(2)]
    for connection in busy:
        connection.sendall(request("GET", "/sleep?s=100"))
        time.sleep(0.2)
    probes = ("/livez", "/readyz", "/startupz", "/health", "/metrics")
    assert [server.admin(probe)[0] for probe in probes] == [200] * 5
    assert select.select(busy, [], [], 0)[0] == [], "nobody has an answer: they are still busy"
    slept = server.workers
    for worker in slept:
        os.kill(worker, signal.SIGKILL)
    eventually(lambda: len(server.workers - slept) == 2 and server.get("/pid"))
    for connection in busy:
        connection.close()


def test_metrics_are_those_of_all_workers_also_of_dead_ones(server: Served) -> None:
    count_before = server.counted()
    pids = {int(server.get("/count")) for _ in range(40)}
    assert server.counted() == count_before + 40
    dead = pids.pop()
    os.kill(dead, signal.SIGKILL)
    eventually(lambda: dead not in server.workers and len(server.workers) == 2)
    assert server.counted() == count_before + 40


def test_a_metric_is_declared_before_it_has_a_value(server: Served) -> None:
    _, text = server.admin("/metrics")
    assert "# TYPE never_total counter" in text
    assert "process_resident_memory" not in text, "nothing about the admin process itself"


def test_the_start_time_is_the_masters_and_outlives_its_workers(server: Served) -> None:
    def started_at() -> float:
        lines = server.admin("/metrics")[1].splitlines()
        [line] = [line for line in lines if line.startswith("process_start_time_seconds ")]
        return float(line.split()[1])

    started_at_before = started_at()
    assert 0 < time.time() - started_at_before < 600
    dead = min(server.workers)
    os.kill(dead, signal.SIGKILL)
    eventually(lambda: dead not in server.workers and len(server.workers) == 2)
    assert started_at() == started_at_before


def test_a_lost_dependency_shows_without_details(server: Served, folder: Path) -> None:
    refuse = folder / "refuse"
    refuse.touch()
    eventually(lambda: server.admin("/readyz")[0] == 503)
    assert "[-]switch failed: connection refused\n" in server.admin("/readyz?verbose")[1]
    status, text = server.admin("/health")
    health = msgspec.json.decode(text)
    assert (status, health["status"], health["checks"]["switch"]["error"]) == (
        503,
        "Unhealthy",
        "connection refused",
    )
    assert server.admin("/livez")[0] == 200, "a restart would not help"
    refuse.unlink()
    eventually(lambda: server.admin("/readyz")[0] == 200)
