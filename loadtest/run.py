"""One run of one scenario: prepare, drive, settle, decide, write down."""

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from loadtest import baseline, faults, knee, memory, outcome, phases, timeline, verdict
from loadtest.drive import Generators, command, drive, environment
from loadtest.faults import Event, Timetable
from loadtest.grafana import Annotation
from loadtest.locusts.counting import WorkerReport
from loadtest.locusts.identity import baggage, signing
from loadtest.memory import MemoryReading, Sampler
from loadtest.purchase import Purchase
from loadtest.quiet import Probe
from loadtest.report import artefacts, progress, summary
from loadtest.report.progress import Progress
from loadtest.result import RunResult, machine
from loadtest.scenario import Scenario, Threshold, Upstream
from loadtest.settle import settle
from loadtest.target import broker, seeding, simulators
from loadtest.target.addresses import SetupFailed, Target
from loadtest.target.orders import InApi, InDatabase, Orders, last_order
from loadtest.verdict import ExitCode
from loadtest.watchdog import AbortWatchdog


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The caller's options, the same for every scenario of a call.

    `environ` goes to Locust's processes and names the run, the key and Grafana.
    """

    folder: Path
    environ: Mapping[str, str]
    generators: Generators = Generators()
    regression: float | None = None
    thresholds: tuple[Threshold, ...] = ()
    abort: bool = False
    save_baseline: bool = False


@dataclass(frozen=True)
class Observations:
    """The observations while the load ran."""

    reports: list[WorkerReport]
    purchases: list[Purchase]
    events: list[Event]
    readings: list[MemoryReading]
    lateness: dict[str, float]


def run(scenario: Scenario, target: Target, options: RunOptions) -> RunResult:
    """Run a scenario and give what came out. Raises SetupFailed, Unreachable, StackFailed."""
    name = options.environ.get("LOADTEST_RUN") or uuid.uuid4().hex[:8]
    annotation, verdict_text = Annotation(options.environ), summary.VERDICTS[ExitCode.SETUP]
    annotation.begin(scenario.name, name)
    try:
        result = carry_out(scenario, target, options, name)
        verdict_text = summary.VERDICTS[result.verdict]
        return result
    finally:
        annotation.end(f"{scenario.name}: {verdict_text}")


def carry_out(scenario: Scenario, target: Target, options: RunOptions, name: str) -> RunResult:
    """Prepare, drive, settle, decide, write down. Raises as `run` does."""
    start = dt.datetime.now(dt.UTC)
    folder = options.folder / "results" / f"{scenario.name}-{start:%Y%m%dT%H%M%S}-{name}"
    folder.mkdir(parents=True)
    prepare(scenario, target)
    dead_before, last_id = dead_letters(target), last_order(target)
    observations = observe(scenario, target, options, name, folder)
    books, findings, settled_s = settle(
        target, orders(scenario, target, options, name, last_id), observations.purchases,
        scenario.stock, scenario.settle_s,
    )  # fmt: skip
    values = figures(scenario, observations) | outcome.figures(
        observations.purchases, books, scenario.stock
    )
    if dead_before is not None:
        values["dead_letters"] = float((dead_letters(target) or 0) - dead_before)
    baseline_file = options.folder / "baselines" / f"{scenario.name}.json"
    baseline_figures = baseline.load(baseline_file)
    local = target.stack is not None
    checks = verdict.check(thresholds(scenario, baseline_figures, options), values, local=local)
    result = RunResult(
        scenario=scenario, run=name, host=target.host, began=f"{start:%Y-%m-%dT%H:%M:%SZ}",
        verdict=verdict.decide(checks, findings), checks=checks, findings=findings, figures=values,
        comparisons=baseline.compare(baseline_figures, values), events=observations.events,
        levels=knee.levels(observations.reports, scenario) if scenario.knee else [],
        memory=observations.readings, settled_s=settled_s, machine=machine(),
    )  # fmt: skip
    if result.passed and (options.save_baseline or not baseline_figures):
        baseline.save(baseline_file, values)
    artefacts.write(result, observations.reports, folder)
    progress.say(f"\n{summary.text(result)}\n  {folder}/report.html\n")
    return result


def prepare(scenario: Scenario, target: Target) -> None:
    """Bring the target into the state that the scenario begins with."""
    for simulator in (target.inventory, target.payment):
        if simulator:
            simulators.set_faults(simulator, {})
    if target.inventory:
        simulators.set_stock(target.inventory, scenario.stock)
    if scenario.seed and target.database:
        progress.say(f"  inserting {scenario.seed.orders:,} orders")
        seeding.insert(target.database, scenario.seed)


def observe(
    scenario: Scenario, target: Target, options: RunOptions, name: str, folder: Path
) -> Observations:
    """Drive the load and return the observations. Raises SetupFailed, Unreachable, StackFailed."""
    sampler, probe = Sampler(target.stack), Probe()
    timetable = Timetable(scenario.moments, faults.executor(target, progress.say), progress.event)
    reporter = Progress(folder / "timeline.jsonl")
    watchdog = AbortWatchdog(scenario, options.thresholds, folder) if options.abort else None

    def begin() -> None:
        timetable.start()
        sampler.start()
        probe.start()

    environ = environment(
        dict(options.environ)
        | {"LOADTEST_SCENARIO": scenario.name, "LOADTEST_RUN": name, "LOADTEST_OUT": str(folder)}
    )
    try:
        polls = [reporter.poll, watchdog.poll] if watchdog else [reporter.poll]
        drive(command(options.generators, target.host, folder), environ, folder, begin, *polls)
        timetable.finish()
    finally:
        timetable.abandon()
        sampler.finish()
        probe.finish()
        reset_faults(scenario, target)
    if timetable.failure is not None:
        raise SetupFailed(f"a fault could not be carried out: {timetable.failure}")
    reports = timeline.read(folder / "timeline.jsonl")
    if cut_off := unfinished(reports):
        raise SetupFailed(f"{cut_off} customers were cut off: what they bought is not known")
    return Observations(
        reports, purchases(folder / "purchases.jsonl"),
        timetable.events + (watchdog.events if watchdog else []), sampler.readings,
        probe.figures(),
    )  # fmt: skip


def unfinished(reports: list[WorkerReport]) -> int:
    """Count journeys that their worker never reported as over: without them nothing is decided."""
    return sum({report.worker: report.busy for report in reports}.values())


def reset_faults(scenario: Scenario, target: Target) -> None:
    """Leave the simulators well, also when the run was broken off."""
    for moment in scenario.moments:
        if isinstance(moment.act, Upstream) and (address := getattr(target, moment.act.name)):
            simulators.set_faults(address, {})


def purchases(file: Path) -> list[Purchase]:
    """Read the answers that customers got."""
    lines = file.read_bytes().splitlines() if file.exists() else []
    return [msgspec.json.decode(line, type=Purchase) for line in lines]


def orders(
    scenario: Scenario, target: Target, options: RunOptions, name: str, last_id: int
) -> Orders:
    """Choose where to look orders up."""
    if target.database:
        return InDatabase(target.database, name, last_id)
    return InApi(target.host, signing(options.environ), baggage(scenario.name, name), last_id)


def figures(scenario: Scenario, observations: Observations) -> dict[str, float]:
    """Give everything that was measured while the load ran."""
    values = timeline.figures(observations.reports, scenario) | observations.lateness
    values |= memory.figures(observations.readings) | memory.figures(
        memory.of_locust(observations.reports)
    )
    if scenario.knee and (level := knee.knee(knee.levels(observations.reports, scenario))):
        values |= {"knee.users": level.users, "knee.rate": level.rate, "knee.p99_ms": level.p99_ms}
    values |= phases.overload(values)
    if "deep-page.p50_ms" in values:
        values["deep-page.p50_of_first"] = values["deep-page.p50_ms"] / values["first-page.p50_ms"]
    return values


def thresholds(
    scenario: Scenario, baseline_figures: Mapping[str, float], options: RunOptions
) -> tuple[Threshold, ...]:
    """Return the scenario's own, and those that the last baseline sets if the caller wants them."""
    all_thresholds = scenario.thresholds + options.thresholds
    if options.regression is None:
        return all_thresholds
    return all_thresholds + tuple(baseline.limits(baseline_figures, options.regression))


def dead_letters(target: Target) -> int | None:
    """Count dead letters; None if they cannot be counted."""
    return broker.dead_letters(target.management) if target.management else None
