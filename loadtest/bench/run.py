"""One run: start the servers, let the contestants work in turns, record rates, CPU and memory."""

import contextlib
import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from devstack.packages import rabbitmq
from devstack.servers import postgres
from devstack.state import locked, remove
from loadtest.bench import answering, cost, machine, peer, relaying, testbed, whole, working
from loadtest.bench.data import Database
from loadtest.bench.generators import PgBench
from loadtest.bench.pairs import turns
from loadtest.bench.results import BenchReport, Memory, Sample, Subject
from loadtest.bench.slow_commits import SlowCommits
from loadtest.bench.subject import Bench, Benchmark, Contestant
from loadtest.bench.testbed import RunPlan, Testbed

_BENCHMARKS: Final[Mapping[str, Callable[[Bench], Benchmark]]] = {
    **{name: partial(answering.benchmark, name=name) for name in answering.NAMES},
    "relay": relaying.benchmark,
    "worker": working.benchmark,
    "whole": whole.benchmark,
}
SUBJECTS: Final = tuple(_BENCHMARKS)

Log = Callable[[str], None]


class Scope(NamedTuple):
    """What to measure; `before` is another checkout whose services take part.

    `go`: the service in Go takes part if Go is installed.
    """

    subjects: Sequence[str]
    plan: RunPlan
    rounds: int
    before: Path | None
    go: bool = True


def run(folder: Path, scope: Scope, log: Log) -> BenchReport:
    """Measure. The servers' data is below `folder`, which one run at a time may use."""
    at, (commit, is_changed), hardware = (
        dt.datetime.now(dt.UTC),
        machine.commit(),
        machine.machine(),
    )
    go, go_gap = _peer(scope, log)
    with (
        locked(folder),
        _empty_folder(folder) as data,
        Testbed(data, scope.plan, scope.before, go) as bed,
    ):
        bench = _prepare(bed, scope, log)
        gaps = left_out(bed.slow_commits, scope.subjects, log)
        names = [name for name in scope.subjects if name not in gaps]
        subjects, memory = _measure(bench, scope._replace(subjects=names), log)
        bench.database.close()
    return BenchReport(
        at=at,
        commit=commit,
        changed=is_changed,
        machine=hardware,
        versions=machine.versions(_broker()) | ({"go": peer.version()} if go else {}),
        settings={**scope.plan._asdict(), "rounds": scope.rounds},
        subjects=subjects,
        memory=memory,
        left_out=gaps | go_gap,
    )


def _peer(scope: Scope, log: Log) -> tuple[Path | None, dict[str, str]]:
    """Return the program of the service in Go, or None with the reason."""
    if not answering.BESIDE_GO & set(scope.subjects):
        return None, {}
    reason = "--without-go"
    if scope.go:
        if peer.built() is None:
            log("building the service in Go, once: it takes minutes")
        try:
            return peer.program(), {}
        except peer.Missing as error:
            reason = str(error)
    log(f"go is left out: {reason}")
    return None, {"go": reason}


@contextlib.contextmanager
def _empty_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder; the files of a killed run are deleted."""
    data = folder / "data"
    if data.exists():
        remove(data)
    data.mkdir()
    try:
        yield data
    finally:
        remove(data)


def _prepare(bed: Testbed, scope: Scope, log: Log) -> Bench:
    for wave in testbed.wanted(scope.subjects, scope.before, go=bed.has_peer):
        log(f"starting {', '.join(wave)}")
        bed.start(*wave)
        if "migrate" in wave:
            database = Database(bed.database_url)
            database.seed()
    program = postgres.programs(bed.settings.state) / "pgbench"
    return Bench(bed, database, PgBench(program, bed.database_url, bed.session_options), scope.plan)


def left_out(slow: SlowCommits, subjects: Sequence[str], log: Log) -> dict[str, str]:
    """Report subjects that cannot be measured here, with the reason; the run continues."""
    if "post-slow" not in subjects or slow.missing is None:
        return {}
    log(f"post-slow is left out: {slow.missing}")
    return {"post-slow": slow.missing}


def _measure(bench: Bench, scope: Scope, log: Log) -> tuple[list[Subject], dict[str, Memory]]:
    subjects: list[Subject] = []
    memory: dict[str, Memory] = {}
    for name in scope.subjects:
        benchmark = _BENCHMARKS[name](bench)
        samples: dict[str, list[Sample]] = {label: [] for label in benchmark.contestants}
        for number, label in turns(list(benchmark.contestants), scope.rounds):
            sample, reading = _slice(bench, benchmark.contestants[label])
            samples[label].append(sample)
            memory |= reading
            log(f"{name}, round {number + 1} of {scope.rounds}: {label} {sample.rate:,.0f}/s")
        subjects.append(
            Subject(name=name, unit=benchmark.unit, samples=samples, compared=benchmark.compared)
        )
    return subjects, memory


def _slice(bench: Bench, contestant: Contestant) -> tuple[Sample, dict[str, Memory]]:
    contestant.before()
    try:
        roles = bench.testbed.roles()
        began_s, machine_s, start_s = time.monotonic(), cost.machine_s(), cost.cpu_s(roles)
        throughput = contestant.run()
        end_s = cost.cpu_s(roles)
        slice_s = {role: end - start_s.get(role, 0.0) for role, end in end_s.items()}
        foreign = cost.foreign(cost.machine_s() - machine_s, slice_s, time.monotonic() - began_s)
        cpu_us = cost.per_unit_us(start_s, end_s, throughput.done)
        reading = cost.memory(roles)
    finally:
        contestant.after()
    sample = Sample(
        rate=throughput.rate,
        cpu_us=cpu_us,
        p50_ms=throughput.p50_ms,
        p99_ms=throughput.p99_ms,
        foreign=foreign,
    )
    return sample, reading


def _broker() -> str:
    listing = (
        (rabbitmq.RELEASE.folder() / "packages.txt").read_text()
        if rabbitmq.RELEASE.cached()
        else ""
    )
    names = [line for line in listing.splitlines() if line.startswith("rabbitmq-server_")]
    return names[0].split("_")[1] if names else "unknown"
