"""The supervisor behind `make up`, run over shell scripts instead of servers."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from devstack import control
from integration.handles import leftovers
from integration.serving import eventually

SCRIPT = Path(__file__).with_name("dummy_stack.py")
SERVICES = SCRIPT.parents[2] / "services"


class Running:
    """A started stack and its output."""

    def __init__(self, state: Path, scenario: str, **environment: str) -> None:
        self.state = state
        self.output = state.with_name(f"{scenario}.txt")
        self.output.parent.mkdir(parents=True, exist_ok=True)
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), str(state), scenario],
                stdout=file,
                stderr=file,
                env={**os.environ, "PYTHONPATH": str(SERVICES), **environment},
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait_ready(self) -> None:
        eventually(lambda: "ready in" in self.text or self.process.poll() is not None)
        assert "ready in" in self.text, self.text

    def wait_end(self) -> int:
        return self.process.wait(60)

    def supervisor(self) -> psutil.Process:
        return psutil.Process(int((self.state / "lock").read_text()))

    def component(self, name: str) -> dict[str, str]:
        """Give a component's line of `status`."""
        answered = control.ask(self.state, verb="status")
        row = next(row for row in answered["rows"] if row[0] == name)
        return dict(
            zip(("name", "state", "pid", "uptime", "restarts", "address"), row, strict=True)
        )


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start stacks with one state folder; all their processes are stopped after the test."""
    started: list[Running] = []

    def begin(scenario: str, **environment: str) -> Running:
        started.append(Running(tmp_path / "state", scenario, **environment))
        return started[-1]

    yield begin
    for running in started:
        if running.process.poll() is None:
            running.process.terminate()
            running.wait_end()


def devstack(state: Path, *argv: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line against a state folder."""
    environment = {**os.environ, "DEVSTACK_STATE": str(state), "PYTHONPATH": str(SERVICES)}
    command = [sys.executable, "-m", "devstack", *argv]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_ctrl_c_ends_everything_in_order(start: Start) -> None:
    stack = start("plain")
    stack.wait_ready()
    os.killpg(stack.process.pid, signal.SIGINT)  # as a terminal does
    assert stack.wait_end() == 0
    components = (stack.state / "order").read_text().split()
    assert components == ["gateway", "api", "worker", "simulator", "database"]
    assert leftovers(stack.state) == []


def test_every_component_has_a_line_when_it_is_ready(start: Start) -> None:
    stack = start("plain")
    stack.wait_ready()
    for name in ("database", "simulator", "worker", "api", "gateway"):
        assert any(line.split()[:2] == [name, "ready"] for line in stack.text.splitlines())


@pytest.mark.parametrize("victim", ["supervisor", "guardian"])
def test_nothing_outlives_a_killed_runner(start: Start, victim: str) -> None:
    stack = start("plain")
    stack.wait_ready()
    assert len(leftovers(stack.state)) >= 6
    target = stack.supervisor() if victim == "supervisor" else psutil.Process(stack.process.pid)
    target.kill()
    eventually(lambda: leftovers(stack.state) == [])


def test_a_paused_component_does_not_survive_either(start: Start) -> None:
    stack = start("plain")
    stack.wait_ready()
    assert devstack(stack.state, "pause", "api").returncode == 0
    assert stack.component("api")["state"] == "paused"
    stack.supervisor().kill()
    eventually(lambda: leftovers(stack.state) == [])


def test_a_component_that_ignores_the_signal_is_killed(start: Start) -> None:
    stack = start("stubborn")
    stack.wait_ready()
    stack.process.terminate()
    assert stack.wait_end() == 0
    assert leftovers(stack.state) == []


def test_a_crash_is_reported_and_repaired(start: Start) -> None:
    stack = start("plain")
    stack.wait_ready()
    os.kill(int(stack.component("api")["pid"]), signal.SIGKILL)
    eventually(lambda: stack.component("api")["restarts"] == "1")
    eventually(lambda: stack.component("api")["state"] == "ready")
    assert "crashed" in stack.text
    assert "ended by SIGKILL" in stack.text
    assert str(stack.state / "logs" / "api.log") in stack.text


def test_a_failed_start_tells_why_and_ends_the_rest(start: Start) -> None:
    stack = start("failing")
    assert stack.wait_end() == 1
    assert "ended with exit code 3" in stack.text
    assert str(stack.state / "logs" / "migrate.log") in stack.text
    assert "the table orders does not exist" in stack.text
    assert max(len(line) for line in stack.text.splitlines()) < 300
    assert not (stack.state / "logs" / "api.log").exists()
    assert leftovers(stack.state) == []


def test_a_state_folder_is_used_once_at_a_time(start: Start) -> None:
    first = start("plain")
    first.wait_ready()
    second = start("stubborn")
    assert second.wait_end() == 2
    assert "already running" in second.text
    assert "DEVSTACK_STATE" in second.text
    assert first.component("api")["state"] == "ready"


def test_a_busy_port_is_named_with_its_holder_and_its_variable(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        stack = start("taken", DUMMY_PORT=str(port))
        assert stack.wait_end() == 2
    assert f"port {port} (database) is taken by" in stack.text
    assert f"(process {os.getpid()})" in stack.text
    assert "set DUMMY_PORT" in stack.text
    assert not (stack.state / "logs" / "database.log").exists()


def test_components_can_be_controlled_one_by_one(start: Start) -> None:
    stack = start("plain")
    stack.wait_ready()
    assert devstack(stack.state, "stop", "worker").returncode == 0
    assert stack.component("worker")["state"] == "stopped"
    status = devstack(stack.state, "status")
    assert status.returncode == 1
    assert status.stderr == "devstack: not everything is ready: worker is stopped\n"
    assert devstack(stack.state, "start", "worker").returncode == 0
    component_before = stack.component("worker")
    assert component_before["state"] == "ready"
    assert devstack(stack.state, "restart", "worker").returncode == 0
    assert stack.component("worker")["pid"] != component_before["pid"]
    assert devstack(stack.state, "pause", "worker").returncode == 0
    assert psutil.Process(int(stack.component("worker")["pid"])).status() == "stopped"
    assert devstack(stack.state, "resume", "worker").returncode == 0
    eventually(lambda: devstack(stack.state, "status").returncode == 0)


def test_a_process_that_somebody_froze_is_not_ready(start: Start) -> None:
    stack = start("plain")
    stack.wait_ready()
    pid = int(stack.component("database")["pid"])
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: stack.component("database")["state"] == "frozen")
    status = devstack(stack.state, "status")
    assert (status.returncode, "database is frozen" in status.stderr) == (1, True)
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: devstack(stack.state, "status").returncode == 0)


def test_a_component_with_short_lived_children_can_be_paused_and_resumed(start: Start) -> None:
    """Its children end between our look and our signal; they are no reason to stay paused."""
    stack = start("plain")
    stack.wait_ready()
    for _ in range(40):
        for verb in ("pause", "resume"):
            control.ask(stack.state, verb=verb, component="worker")
        time.sleep(0.013)
    assert stack.component("worker")["state"] == "ready"


def test_an_unknown_component_is_refused_with_the_known_ones(start: Start) -> None:
    stack = start("plain")
    stack.wait_ready()
    refusal = devstack(stack.state, "stop", "postgress")
    assert refusal.returncode == 2
    assert "no component 'postgress'" in refusal.stderr
    assert "gateway" in refusal.stderr


def test_stop_waits_for_the_end(start: Start) -> None:
    stack = start("plain")
    stack.wait_ready()
    assert devstack(stack.state, "stop").returncode == 0
    assert leftovers(stack.state) == []
    assert devstack(stack.state, "status").returncode == 3
    assert devstack(stack.state, "stop").returncode == 0


def test_a_long_state_path_can_still_be_controlled(tmp_path: Path) -> None:
    """A socket's path may have 107 characters at most."""
    stack = Running(tmp_path / ("long" * 20) / ("path" * 20), "plain")
    try:
        eventually((stack.state / "control").exists)
        stack.wait_ready()
        assert stack.component("api")["state"] == "ready"
    finally:
        stack.process.terminate()
        stack.wait_end()
