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
from loadtest.drive import free_port
from loadtest.grafana import Annotation


def test_a_master_drives_a_worker_that_connects_from_elsewhere(tmp_path: Path) -> None:
    port = str(free_port())
    worker = subprocess.Popen(
        [sys.executable, "-m", "loadtest", "smoke", "--worker-of", f"127.0.0.1:{port}"],
        cwd=ROOT, env=environment(tmp_path),
    )  # fmt: skip
    try:
        with Pretender() as service:
            done = loadtest(
                tmp_path, "smoke", "--host", service.url, "--workers", "1", "--master-port", port
            )
        kept = msgspec.json.decode(done.stdout.splitlines()[-1])
        assert kept["verdict"] == done.returncode, "the last line of the output is the result"
        assert kept["figures"]["orders.accepted"] > 0
        assert all(finding["broken"] == 0 for finding in kept["findings"])
        assert worker.wait(60) == 0, "the worker leaves with its master"
    finally:
        worker.kill()
        worker.wait()


@contextmanager
def grafana() -> Iterator[tuple[str, list[tuple[str, str, str, dict[str, Any]]]]]:
    """Listen as Grafana would and note what it is told."""
    told: list[tuple[str, str, str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            told.append(
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
        yield f"http://127.0.0.1:{server.server_port}", told
    finally:
        server.shutdown()
        server.server_close()


def test_grafana_is_told_of_the_start_and_the_end_as_one_region() -> None:
    with grafana() as (url, told):
        annotation = Annotation({"LOADTEST_GRAFANA_URL": url, "LOADTEST_GRAFANA_TOKEN": "secret"})
        annotation.begin("spike", "run-1")
        annotation.end("spike: passed")
    [began, ended] = told
    assert began[:3] == ("POST", "/api/annotations", "Bearer secret")
    assert began[3]["tags"] == ["loadtest", "spike"]
    assert ended[:2] == ("PATCH", "/api/annotations/42")
    assert ended[3]["timeEnd"] >= began[3]["time"]
    assert ended[3]["text"] == "spike: passed"


def test_a_grafana_that_is_not_there_fails_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    annotation = Annotation({"LOADTEST_GRAFANA_URL": "http://127.0.0.1:9"})
    annotation.begin("spike", "run-1")
    annotation.end("spike: passed")
    assert "Grafana was not told" in capsys.readouterr().out


def test_without_an_address_nobody_is_told() -> None:
    Annotation({}).begin("spike", "run-1")
