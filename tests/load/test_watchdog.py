"""A load that is ended early: at an upper limit that is breached, not before."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from load.process import ROOT
from loadtest import catalogue
from loadtest.locusts.counting import Tally, WorkerReport, to_builtins
from loadtest.scenario import Threshold, at_least, at_most
from loadtest.watchdog import ABORT, AbortWatchdog

SMOKE = msgspec.structs.replace(catalogue.find("smoke"), thresholds=())


def report(folder: Path, t: float, *took_ms: float, failed: int = 0) -> None:
    tally = Tally()
    for number, duration_ms in enumerate(took_ms):
        tally.request("create", 202, duration_ms, failed=number < failed)
    line = msgspec.json.encode(to_builtins(WorkerReport(t=t, names=tally.take()[0])))
    with (folder / "timeline.jsonl").open("ab") as file:
        file.write(line + b"\n")


def ends(folder: Path, *limits: Threshold) -> bool:
    watchdog = AbortWatchdog(SMOKE, limits, folder)
    watchdog.poll()
    watchdog.poll()
    return (folder / ABORT).exists()


def test_a_breached_limit_ends_the_load_and_is_noted(tmp_path: Path) -> None:
    report(tmp_path, 6, *[10.0] * 200)
    watchdog = AbortWatchdog(SMOKE, (at_most("create.p99_ms", 50),), tmp_path)
    watchdog.poll()
    assert not (tmp_path / ABORT).exists()
    report(tmp_path, 7, *[90.0] * 20)
    watchdog.poll()
    assert (tmp_path / ABORT).exists()
    watchdog.poll()
    [event] = watchdog.events
    assert event.text == "aborted: create.p99_ms at most 50, was 90"


@pytest.mark.parametrize(
    "limit",
    [
        at_least("create.requests", 10_000),  # it may still be reached
        at_most("create.p99_ms@fault", 1),  # of a part of the run
        at_most("completion.p99_s", 1),  # known afterwards
        at_most("create.p99_ms", 90),
    ],
)
def test_what_is_not_breached_or_not_known_yet_ends_nothing(
    tmp_path: Path, limit: Threshold
) -> None:
    report(tmp_path, 9, *[90.0] * 200)
    assert not ends(tmp_path, limit)


def test_the_first_seconds_and_a_few_requests_end_nothing(tmp_path: Path) -> None:
    report(tmp_path, 2, *[90.0] * 200)
    assert not ends(tmp_path, at_most("create.p99_ms", 1))
    (tmp_path / "timeline.jsonl").unlink()
    report(tmp_path, 9, *[90.0] * 9)
    assert not ends(tmp_path, at_most("create.p99_ms", 1))


SHAPE = """
from loadtest import catalogue
from loadtest.locusts.shape import shape_of
aborted = [False]
made = shape_of(
    catalogue.find("smoke"), begun=lambda: True, busy=lambda: 3, aborted=lambda: aborted[0]
)()
print(made.tick()[0])
aborted[0] = True
print(made.tick()[0])
"""


def test_nobody_new_comes_once_a_load_is_aborted() -> None:
    output = subprocess.run(
        [sys.executable, "-c", SHAPE],  # Locust changes what it is imported into
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert output.split() == ["4", "0"]
