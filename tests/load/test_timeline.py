"""Workers' reports become figures of the run and of its phases."""

from pathlib import Path

import msgspec
import pytest

from loadtest import catalogue, knee, memory, timeline
from loadtest.baseline import compare, limits, load, save
from loadtest.knee import Level
from loadtest.locusts.counting import Tally, WorkerReport, bucket, to_builtins
from loadtest.memory import MemoryReading
from loadtest.scenario import Moment, Phase, Step, Upstream
from loadtest.sizing import sized

SMOKE = catalogue.find("smoke")


def reported(t: float, name: str, *took_ms: float, failed: int = 0) -> WorkerReport:
    tally = Tally()
    for number, duration_ms in enumerate(took_ms):
        tally.request(name, 200 if number >= failed else 500, duration_ms, failed=number < failed)
    return WorkerReport(t=t, names=tally.take()[0])


def test_figures_are_of_the_whole_run_and_of_each_phase() -> None:
    scenario = msgspec.structs.replace(
        SMOKE, steps=(Step(seconds=10, users=1),), phases=(Phase("fault", 5, 10),)
    )
    reports = [
        reported(1, "create", *[10] * 98, 50, 90),
        reported(6, "create", 400, 400, failed=1),
        reported(7, "poll", 5, 5),
    ]
    figures = timeline.figures(reports, scenario)
    assert figures["create.requests"] == 102
    assert figures["create.rate"] == 10.2
    assert figures["create.p50_ms"] == 10
    assert figures["create.p99_ms"] == 400
    assert figures["create.p99_ms@fault"] == 400
    assert figures["create.error_ratio@fault"] == 0.5
    assert figures["create.status_500@fault"] == 1
    assert figures["all.requests"] == 104
    assert figures["all.failed"] == 1
    assert "poll.p50_ms@fault" in figures


def test_answers_that_are_not_true_are_added_up() -> None:
    wrong = [reported(1, "list: not what was bought", 0, 0, failed=2), reported(1, "list", 5)]
    assert timeline.figures(wrong, SMOKE)["client.wrong"] == 2
    assert timeline.figures(wrong[1:], SMOKE)["client.wrong"] == 0


def test_no_request_at_all_leaves_no_figure_so_that_thresholds_are_breached() -> None:
    assert timeline.figures([], SMOKE) == {}


@pytest.mark.parametrize(("percent", "expected"), [(50, 2), (75, 3), (99, 4), (100, 4), (1, 1)])
def test_percentiles_are_nearest_rank(percent: float, expected: float) -> None:
    assert timeline.percentile({1: 1, 2: 1, 3: 1, 4: 1}, percent) == expected


@pytest.mark.parametrize(
    ("took_ms", "expected"), [(0.2, 0), (7.4, 7), (12.6, 13), (123, 120), (1567, 1600)]
)
def test_times_are_kept_to_two_digits(took_ms: float, expected: int) -> None:
    assert bucket(took_ms) == expected


def test_a_tally_is_empty_after_it_was_taken() -> None:
    tally = Tally()
    tally.request("create", 202, 3, failed=False)
    assert set(tally.take()[0]) == {"create"}
    assert tally.take() == ({}, [])


def test_the_timeline_is_read_back_as_written_and_half_a_line_is_left_for_later(
    tmp_path: Path,
) -> None:
    file, report = tmp_path / "timeline.jsonl", reported(1, "create", 10, 20)
    line = msgspec.json.encode(to_builtins(report)) + b"\n"
    file.write_bytes(line + line[:10])
    first, offset = timeline.read_from(file, 0)
    assert first == [report]
    file.write_bytes(line + line)
    assert timeline.read_from(file, offset) == ([report], 2 * len(line))
    assert timeline.read(tmp_path / "none") == []


def test_the_knee_is_the_last_step_that_brought_more_work() -> None:
    climbing = [Level(10, 100, 20, 0), Level(20, 195, 30, 0), Level(40, 380, 60, 0)]
    assert knee.knee(climbing) == climbing[-1]
    assert knee.knee([*climbing, Level(80, 400, 90, 0)]) == climbing[-1]
    assert knee.knee([*climbing, Level(80, 760, 900, 0)]) == climbing[-1]
    assert knee.knee([*climbing, Level(80, 760, 90, 0.5)]) == climbing[-1]
    assert knee.knee([Level(10, 100, 900, 0)]) is None
    assert knee.knee([]) is None


def test_the_levels_of_a_run_leave_out_the_first_seconds_of_each_step() -> None:
    scenario = msgspec.structs.replace(
        SMOKE, steps=(Step(seconds=12, users=1), Step(seconds=12, users=2))
    )
    reports = [reported(1, "create", 9000), reported(5, "create", *[10] * 100)]
    assert knee.levels(reports, scenario) == [Level(1, 10.0, 10.0, 0.0)]


def test_memory_that_grows_has_a_slope_and_memory_that_does_not_has_none() -> None:
    readings = [MemoryReading(float(t), {"api": 100 + t, "worker": 50.0}) for t in range(100)]
    figures = memory.figures(readings)
    assert figures["memory.api.slope_mib_per_min"] == 60
    assert figures["memory.worker.slope_mib_per_min"] == 0
    assert figures["memory.api.max_mib"] == 199
    assert memory.figures(readings[:1])["memory.api.slope_mib_per_min"] == 0


def test_what_fills_a_cache_at_the_start_is_no_slope() -> None:
    readings = [MemoryReading(float(t), {"api": 100.0 + min(t, 30)}) for t in range(100)]
    assert memory.figures(readings)["memory.api.slope_mib_per_min"] == 0


def test_the_largest_locust_worker_is_the_one_that_counts() -> None:
    reports = [WorkerReport(t=1.1, rss_bytes=50 * 2**20), WorkerReport(t=1.2, rss_bytes=70 * 2**20)]
    assert memory.of_locust(reports) == [MemoryReading(1, {"locust": 70})]


def test_a_scenario_stretched_and_scaled_keeps_its_proportions() -> None:
    scenario = msgspec.structs.replace(
        SMOKE,
        steps=(Step(seconds=10, users=4, rate=2), Step(seconds=30, users=8)),
        moments=(Moment(10, Upstream("payment")),),
        phases=(Phase("fault", 10, 20),),
    )
    longer = sized(scenario, seconds=80, scale=2)
    assert longer.seconds == 80
    assert longer.steps[0] == Step(seconds=20, users=8, rate=4)
    assert longer.moments[0].at_s == 20
    assert longer.phases == (Phase("fault", 20, 40),)
    assert sized(scenario) == scenario


def test_a_baseline_is_compared_with_and_can_be_a_threshold(tmp_path: Path) -> None:
    file = tmp_path / "kept" / "smoke.json"
    assert load(file) == {}
    save(file, {"create.p99_ms": 100, "create.p50_ms": 2, "create.requests": 7})
    baseline = load(file)
    [compared] = compare(baseline, {"create.p99_ms": 150, "new.p99_ms": 1})
    assert compared.ratio == 1.5
    limits_by_figure = {threshold.figure: threshold.limit for threshold in limits(baseline, 1.2)}
    assert limits_by_figure == {"create.p99_ms": 120, "create.p50_ms": 12}


def test_every_scenario_is_complete_and_its_faults_end_before_it_does() -> None:
    for scenario in catalogue.every():
        assert scenario.proves
        assert scenario.thresholds
        assert scenario.seconds <= 150, "two to three minutes each"
        assert all(moment.at_s < scenario.seconds for moment in scenario.moments)
        assert all(phase.until_s <= scenario.seconds for phase in scenario.phases)


def test_an_unknown_scenario_is_named_with_those_that_are_known() -> None:
    with pytest.raises(catalogue.UnknownScenario, match="smoke"):
        catalogue.find("smok")
