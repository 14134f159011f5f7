"""The output of `make bench`: tables, documentation, the saved file."""

import datetime as dt

import msgspec
import psutil
import pytest

from loadtest.bench import cost, table
from loadtest.bench.results import BenchReport, Memory, Sample, Subject


def report() -> BenchReport:
    straight = [Sample(rate=rate, cpu_us={"api": rate}, p50_ms=1, p99_ms=9) for rate in (50, 70)]
    pgbench = [Sample(rate=rate, p50_ms=2) for rate in (100, 100)]
    subject = Subject(
        name="post",
        unit="request",
        samples={"straight": straight, "pgbench": pgbench},
        compared=[("straight", "pgbench")],
    )
    return BenchReport(
        at=dt.datetime(2026, 1, 31, tzinfo=dt.UTC),
        commit="abc",
        changed=False,
        machine={"cpu": "X", "cores": "2", "memory": "8 GiB", "kernel": "6", "load": "0.1"},
        versions={"python": "3.11"},
        settings={"rounds": 2},
        subjects=[subject],
        memory={"api": Memory(3, 90.0, 40.0)},
    )


def test_the_ratio_stands_beside_the_figures_it_is_made_of() -> None:
    ratios = next(sheet for sheet in table.sheets(report()) if sheet.title == "Ratios")
    assert ratios.rows == [("post", "straight / pgbench", "0.60", "0.50 to 0.70", "60 / 100")]


def test_a_round_in_which_others_used_the_machine_counts_only_if_there_is_no_other() -> None:
    quiet, busy = Sample(rate=50), Sample(rate=10, foreign=0.3)
    bound = [Sample(rate=100), Sample(rate=100)]
    samples = {"ours": [quiet, busy], "bound": bound, "loud": [busy, busy]}
    subject = Subject(name="post", unit="request", samples=samples, compared=[])
    assert subject.ratio("ours", "bound").median == 0.5
    assert subject.ratio("loud", "bound").median == 0.1
    assert subject.foreign("ours") == 0.3


def test_what_others_used_is_what_the_machine_used_and_we_did_not() -> None:
    cores = psutil.cpu_count() or 1
    assert cost.foreign(2.0 * cores, {"api": 1.0 * cores}, 10.0) == 0.1
    assert cost.foreign(1.0, {"api": 1.1}, 10.0) == 0  # clocks of two sources


def test_a_run_is_compared_with_an_earlier_one() -> None:
    sheet = table.against(report(), report())
    assert sheet.rows == [("post", "straight / pgbench", "0.60", "0.60", "+0%")]
    assert "2026-01-31" in sheet.title


def test_the_saved_file_reads_back_as_what_it_was() -> None:
    saved = report()
    assert msgspec.json.decode(msgspec.json.encode(saved), type=BenchReport) == saved


def test_a_new_run_takes_the_place_of_the_last_one_in_the_document() -> None:
    document = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    text = table.inserted(document, report())
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert table.inserted(text, report()) == text


def test_what_was_not_measured_is_said_in_the_document() -> None:
    without = msgspec.structs.replace(report(), left_out={"post-slow": "it needs a C compiler"})
    assert "Left out: post-slow, it needs a C compiler." in table.markdown(without)


def test_a_document_without_a_place_is_left_alone() -> None:
    with pytest.raises(ValueError, match="no place"):
        table.inserted("nothing", report())


def test_cpu_is_told_per_request_and_without_who_did_nothing() -> None:
    cpu_before = {"api": 1.0, "idle": 5.0}
    cpu_after = {"api": 3.0, "idle": 5.0, "started": 0.5}
    assert cost.per_unit_us(cpu_before, cpu_after, 1000) == {"api": 2000.0, "started": 500.0}
