"""Exemplars that several processes keep in files, and that are added to the sums."""

from pathlib import Path

from prometheus_client.metrics_core import HistogramMetricFamily

from orders.telemetry.exemplars import Exemplars, attach, forget, read

BOUNDS = (0.1, 0.5)
LABELS = (("http_route", "/api/orders"),)
TRACE, LATER = "1" * 32, "2" * 32


def durations() -> HistogramMetricFamily:
    family = HistogramMetricFamily("took_seconds", "Seconds.", labels=["http_route"])
    family.add_metric(["/api/orders"], [("0.1", 1), ("0.5", 2), ("+Inf", 3)], 9)
    return family


def traces(folder: Path) -> dict[str, str]:
    """Return the trace of each bucket that has one."""
    family = durations()
    attach(family, read(folder))
    return {
        sample.labels["le"]: sample.exemplar.labels["trace_id"]
        for sample in family.samples
        if sample.exemplar is not None
    }


def test_each_bucket_leads_to_the_trace_of_an_observation_in_it(tmp_path: Path) -> None:
    exemplars = Exemplars(tmp_path, 1)
    exemplars.note("took_seconds", LABELS, BOUNDS, 0.1, TRACE)
    exemplars.note("took_seconds", LABELS, BOUNDS, 7, LATER)
    exemplars.note("other_seconds", LABELS, BOUNDS, 0.3, TRACE)
    assert traces(tmp_path) == {"0.1": TRACE, "+Inf": LATER}


def test_of_several_processes_the_newest_counts_and_one_that_ended_none(tmp_path: Path) -> None:
    Exemplars(tmp_path, 1).note("took_seconds", LABELS, BOUNDS, 0.3, TRACE)
    Exemplars(tmp_path, 2).note("took_seconds", LABELS, BOUNDS, 0.2, LATER)
    assert traces(tmp_path) == {"0.5": LATER}
    forget(tmp_path, 2)
    assert traces(tmp_path) == {"0.5": TRACE}
    forget(tmp_path, 2)


def test_a_bucket_is_written_once_a_second_at_most(tmp_path: Path) -> None:
    exemplars = Exemplars(tmp_path, 1)
    for trace in (TRACE, LATER):
        exemplars.note("took_seconds", LABELS, BOUNDS, 0.3, trace)
    assert traces(tmp_path) == {"0.5": TRACE}


def test_more_buckets_than_there_is_room_for_and_half_a_line_harm_nobody(tmp_path: Path) -> None:
    exemplars = Exemplars(tmp_path, 1)
    for number in range(300):
        exemplars.note("took_seconds", (("http_route", str(number)),), BOUNDS, 0.3, TRACE)
    assert len(read(tmp_path)) == 128
    (tmp_path / "exemplars-2").write_bytes(b'{"metric":"took')
    assert len(read(tmp_path)) == 128
