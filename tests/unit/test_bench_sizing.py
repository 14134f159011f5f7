"""The calculations of docs/scaling.md from a run, against figures worked out by hand."""

import datetime as dt

import pytest

from loadtest.bench import sizing, table
from loadtest.bench.cli import SIZES
from loadtest.bench.results import BenchReport, Sample, Subject


def subject(name: str, **samples: Sample) -> Subject:
    return Subject(
        name=name,
        unit="",
        samples={process: [sample] for process, sample in samples.items()},
        compared=[],
    )


def report(*left_out: str) -> BenchReport:
    requests = {"api": 100.0, "gateway": 50.0, "postgres": 100.0, "valkey": 10.0}
    usage = {"api": 250.0, "worker": 600.0, "relay": 60.0, "postgres": 500.0, "rabbitmq": 120.0}
    subjects = [
        *(
            subject(name, gateway=Sample(rate=1, cpu_us=requests))
            for name in ("post", "get", "list")
        ),
        subject("relay", relay=Sample(rate=20_000), broker=Sample(rate=30_000)),
        subject("worker", worker=Sample(rate=1_000)),
        subject("whole", straight=Sample(rate=1, cpu_us=usage)),
    ]
    return BenchReport(
        at=dt.datetime(2026, 1, 31, tzinfo=dt.UTC),
        commit="abc",
        changed=False,
        machine={"cpu": "X", "cores": "2", "memory": "8 GiB", "kernel": "6", "load": "0.1"},
        versions={},
        settings={},
        subjects=[each for each in subjects if each.name not in left_out],
        memory={},
    )


def figures(title: str) -> dict[str, list[str]]:
    sheet = next(sheet for sheet in sizing.sheets(report()) if sheet.title == title)
    return {row[0]: list(row[1:]) for row in sheet.rows}


def test_an_order_costs_what_its_requests_and_its_way_to_the_end_cost() -> None:
    costs = figures("What one order costs")
    assert costs["api pod: POST"][-1] == "300"  # 250 + 50
    assert costs["api pod: 10 hot GETs"][-1] == "1,500"
    assert costs["PostgreSQL"][-1] == "600"  # 500 + 100 of a list
    assert costs["Valkey"][-1] == "110"  # none in whole, 11 reads
    # 300 + 1,500 + 150 + 600 + 60 + 2 x 600 + 120 + 110
    assert costs["all, PostgreSQL twice for a replica"][-1] == "4,040"


def test_sizes_follow_from_the_costs() -> None:
    sizes = figures("Three sizes")
    assert sizes["api: cores"] == ["3.2", "32", "325"]  # 1,950 us an order at 60 %
    assert sizes["api: pods"] == ["2", "17", "163"]
    assert sizes["workers (processes)"] == ["2", "17", "167"]  # 600 orders a second each
    assert sizes["workers, Inventory takes 20 ms"] == ["3", "25", "250"]  # 16 calls, 40 ms an order
    assert sizes["relay: share of one relay's rate"] == ["10%", "100%", "1000%"]
    assert sizes["connections to PostgreSQL"] == ["54", "369", "3,483"]  # 9, 12, and 12
    assert sizes["WAL of a day in TB"] == ["0.5", "5.3", "53"]
    assert sizes["cores in all, with one replica of PostgreSQL"] == ["6.7", "67", "673"]
    # 6.733 x 30 + 0.5262 x 100
    assert sizes["a month, cores and the WAL of a day"] == ["255", "2,546", "25,462"]


def test_each_limit_is_a_rate_of_its_own() -> None:
    limits = figures("Limits")
    assert limits["one relay at 60% of its rate"] == ["6,000/s"]
    assert limits["one thread of Valkey at 60%"] == ["5,455/s"]
    assert limits["one broker at 60% of its confirms"] == ["9,000/s"]
    assert limits["a primary of 32 cores at 60%"] == ["32,000/s"]
    assert limits["installations for 100,000/s, each with one relay"] == ["17"]
    slow = "a call of Inventory that limits a worker before its CPU does, from"
    assert limits[slow] == ["13 ms"]  # 600 orders a second, 16 calls, 2 an order


@pytest.mark.parametrize("name", sorted(sizing.NEEDED))
def test_a_run_without_a_subject_gives_no_sizes(name: str) -> None:
    with pytest.raises(KeyError):
        sizing.sheets(report(name))


def test_the_page_has_a_place_for_the_tables() -> None:
    page = table.inserted(SIZES.read_text(), report(), sizing.sheets(report()))
    assert "| api: pods | 2 | 17 | 163 |" in page
    assert table.inserted(page, report(), sizing.sheets(report())) == page
