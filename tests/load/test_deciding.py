"""The whole runner against services that break guarantees: each has its own exit code."""

import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import psutil
import pytest

from load.pretender import Pretender
from load.process import ROOT, environment, loadtest
from loadtest import catalogue


def short(folder: Path, scenario: str, service: Pretender) -> "subprocess.CompletedProcess[str]":
    return loadtest(folder, scenario, "--host", service.url, "--duration", "4", "--processes", "1")


def results(folder: Path) -> Path:
    [path] = (folder / "results").iterdir()
    return path


def test_a_service_that_loses_an_order_is_caught_with_2(tmp_path: Path) -> None:
    with Pretender(loses=5) as service:
        process = short(tmp_path, "smoke", service)
    assert process.returncode == 2, process.stdout + process.stderr
    assert "was accepted but does not exist" in process.stdout
    suite = ET.fromstring((results(tmp_path) / "junit.xml").read_bytes())
    failed = [
        case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None
    ]
    assert "no accepted order is lost" in failed


def test_a_service_that_makes_two_orders_of_one_purchase_is_caught_with_2(tmp_path: Path) -> None:
    with Pretender(doubles=4) as service:
        process = short(tmp_path, "idempotency", service)
    assert process.returncode == 2, process.stdout + process.stderr
    assert "became the orders" in process.stdout


def test_a_service_that_is_slow_but_honest_is_refused_with_1(tmp_path: Path) -> None:
    with Pretender(late_s=5.5) as service:
        process = short(tmp_path, "smoke", service)
    assert process.returncode == 1, process.stdout + process.stderr
    result = msgspec.json.decode((results(tmp_path) / "result.json").read_bytes())
    breached = [check["threshold"]["figure"] for check in result["checks"] if not check["holds"]]
    assert "create.p99_ms" in breached
    assert all(finding["broken"] == 0 for finding in result["findings"])
    assert not (tmp_path / "baselines").exists(), "a run that failed is no baseline"


def test_a_service_that_answers_with_nonsense_is_refused(tmp_path: Path) -> None:
    with Pretender(mad=True) as service:
        process = short(tmp_path, "smoke", service)
    assert "client.wrong at most 0" in process.stdout, process.stdout + process.stderr
    result = msgspec.json.decode((results(tmp_path) / "result.json").read_bytes())
    assert result["figures"]["client.wrong"] > 0


@pytest.mark.parametrize(("where", "exit_code"), [("list", 1), ("order", 2)])
def test_a_proxy_that_shows_another_total_is_caught(
    tmp_path: Path, where: str, exit_code: int
) -> None:
    with Pretender(alters=where) as service:
        process = short(tmp_path, "smoke", service)
    assert process.returncode == exit_code, process.stdout + process.stderr
    result = msgspec.json.decode((results(tmp_path) / "result.json").read_bytes())
    assert result["figures"]["client.wrong"] > 0


def test_arrivals_that_breach_a_limit_of_the_command_line_are_ended_early_with_1(
    tmp_path: Path,
) -> None:
    with Pretender(late_s=0.2) as service:
        process = loadtest(
            tmp_path, "smoke", "--host", service.url, "--processes", "1", "--duration", "140",
            "--rate", "20", "--threshold", "create.p99_ms<=50", "--abort-on-fail",
        )  # fmt: skip
    assert process.returncode == 1, process.stdout + process.stderr
    result = msgspec.json.decode((results(tmp_path) / "result.json").read_bytes())
    [event] = result["events"]
    assert event["text"].startswith("aborted: create.p99_ms at most 50")
    assert event["at_s"] < 100
    assert result["figures"]["create.requests"] > 20


def test_no_service_at_all_is_3(tmp_path: Path) -> None:
    process = loadtest(tmp_path, "smoke", "--host", "http://127.0.0.1:9")
    assert process.returncode == 3
    assert "127.0.0.1:9/health" in process.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smoke", "--host", "https://orders.example.com"], "LOADTEST_ALLOWED_HOSTS"),
        (["smok"], "no scenario 'smok'"),
        (["smoke", "--host", "orders"], "expected http"),
    ],
)
def test_what_cannot_be_run_is_3_and_says_why(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    process = loadtest(tmp_path, *arguments)
    assert process.returncode == 3
    assert message in process.stderr
    assert not (tmp_path / "results").exists(), "nothing was sent"


def test_without_a_scenario_all_of_them_are_listed_with_a_line_each(tmp_path: Path) -> None:
    process = loadtest(tmp_path)
    assert process.returncode == 0
    assert len(process.stdout.splitlines()) == len(catalogue.NAMES)


def test_a_run_that_is_broken_off_leaves_no_process_behind(tmp_path: Path) -> None:
    with Pretender() as service:
        running = subprocess.Popen(
            [sys.executable, "-m", "loadtest", "smoke", "--host", service.url],
            cwd=ROOT, env=environment(tmp_path), start_new_session=True,
        )  # fmt: skip
        until = time.monotonic() + 120
        while not list(tmp_path.glob("results/*/began")):
            assert time.monotonic() < until
            time.sleep(0.1)
        descendants = psutil.Process(running.pid).children(recursive=True)
        running.terminate()
        assert running.wait(60) == 130
    assert descendants
    _, alive = psutil.wait_procs(descendants, timeout=30)
    assert alive == []
