"""The parts that a cluster needs: workers that connect from elsewhere, annotations in Grafana."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from load.pretender import Pretender
from load.process import ROOT, environment, loadtest
from loadtest import catalogue
from loadtest.drive import Generators, command, free_port
from loadtest.grafana import Annotation
from loadtest.run import RunOptions, run
from loadtest.target.addresses import Target
from loadtest.target.http import Unreachable


def test_a_master_drives_a_worker_that_connects_from_elsewhere(tmp_path: Path) -> None:
    port = str(free_port())
    worker = subprocess.Popen(
        [sys.executable, "-m", "loadtest", "smoke", "--worker-of", f"127.0.0.1:{port}"],
        cwd=ROOT, env=environment(tmp_path),
    )  # fmt: skip
    try:
        with Pretender() as service:
            process = loadtest(
                tmp_path, "smoke", "--host", service.url, "--workers", "1", "--master-port", port
            )
        result = msgspec.json.decode(process.stdout.splitlines()[-1])
        assert result["verdict"] == process.returncode, "the last line of the output is the result"
        assert result["figures"]["orders.accepted"] > 0
        assert all(finding["broken"] == 0 for finding in result["findings"])
        assert worker.wait(60) == 0, "the worker leaves with its master"
    finally:
        worker.kill()
        worker.wait()


@contextmanager
def grafana() -> Iterator[tuple[str, list[tuple[str, str, str, dict[str, Any]]]]]:
    """Run a server in Grafana's place that records what it receives."""
    calls: list[tuple[str, str, str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            calls.append(
                (self.command, self.path, self.headers["Authorization"], msgspec.json.decode(raw))
            )
            body = b'{"message": "Annotation added", "id": 42}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PATCH(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", calls
    finally:
        server.shutdown()
        server.server_close()


def test_grafana_is_told_of_the_start_and_the_end_as_one_region() -> None:
    with grafana() as (url, calls):
        annotation = Annotation({"LOADTEST_GRAFANA_URL": url, "LOADTEST_GRAFANA_TOKEN": "secret"})
        annotation.begin("spike", "run-1")
        annotation.end("spike: passed")
    [start_call, end_call] = calls
    assert start_call[:3] == ("POST", "/api/annotations", "Bearer secret")
    assert start_call[3]["tags"] == ["loadtest", "spike"]
    assert end_call[:2] == ("PATCH", "/api/annotations/42")
    assert end_call[3]["timeEnd"] >= start_call[3]["time"]
    assert end_call[3]["text"] == "spike: passed"


def test_grafana_is_told_the_end_of_a_run_that_could_not_be_run(tmp_path: Path) -> None:
    with grafana() as (url, calls):
        target = Target(host="http://127.0.0.1:9", inventory="http://127.0.0.1:9")
        options = RunOptions(
            folder=tmp_path, environ={"LOADTEST_GRAFANA_URL": url, "LOADTEST_RUN": "r"}
        )
        with pytest.raises(Unreachable):
            run(catalogue.find("smoke"), target, options)
    assert [call[0] for call in calls] == ["POST", "PATCH"]
    assert calls[1][3]["text"] == "smoke: could not be run"


def test_a_worker_does_not_load_a_host_that_is_not_allowed(tmp_path: Path) -> None:
    script = (
        "from types import SimpleNamespace as It;"
        "from loadtest.locusts.locustfile import leave_unless_allowed as leave;"
        "leave(It(host='http://localhost', runner=None)); print('went on');"
        "leave(It(host='http://orders.example.com', runner=None)); print('loaded it')"
    )
    variables = {"LOADTEST_SCENARIO": "smoke", "LOADTEST_RUN": "r"}
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment(tmp_path) | variables,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (process.returncode, "loaded it" in process.stdout) == (3, False), process.stderr
    assert "orders.example.com is not local" in process.stderr


@pytest.mark.parametrize("flag", [["--headless"], ["--headless", "--processes", "1"]])
def test_locust_started_by_hand_does_not_load_a_host_that_is_not_allowed(
    tmp_path: Path, flag: list[str]
) -> None:
    with Pretender() as service:
        # The same service, by a name that is not this machine's.
        host = service.url.replace("127.0.0.1", "127.0.0.2")
        variables = {
            "LOADTEST_SCENARIO": "smoke",
            "LOADTEST_RUN": "r",
            "LOADTEST_OUT": str(tmp_path),
        }
        subprocess.run(
            [sys.executable, "-m", "locust", "-f", "loadtest/locusts/locustfile.py", *flag,
             "--host", host, "--run-time", "3s"],
            cwd=ROOT, env=environment(tmp_path) | variables | {"PYTHONPATH": str(ROOT)},
            capture_output=True, check=False, timeout=120,
        )  # fmt: skip
        assert service.orders == {}


def test_the_web_page_is_for_this_machine_alone(tmp_path: Path) -> None:
    for generators in (Generators(web=True), Generators(web=True, workers=2)):
        argv = command(generators, "http://localhost", tmp_path)
        assert argv[argv.index("--web-host") + 1] == "127.0.0.1"


def test_a_grafana_that_is_not_there_fails_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    annotation = Annotation({"LOADTEST_GRAFANA_URL": "http://127.0.0.1:9"})
    annotation.begin("spike", "run-1")
    annotation.end("spike: passed")
    assert "Grafana got no annotation" in capsys.readouterr().out


def test_without_an_address_nobody_is_told() -> None:
    Annotation({}).begin("spike", "run-1")
