"""The process of one component: start, wait until ready, stop, kill, pause."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from devstack.component import Component

POLL_S = 0.05
# Time for a dead program's own children (PostgreSQL's backends, nginx's workers) to follow it.
ORPHANS_WITHIN_S = 1.5
# A process first finishes its call to the kernel, for example a flush to disk.
_STOPS_WITHIN_S = 5.0
_STOPPED = frozenset({psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_ZOMBIE})
TAIL_LINES = 12
TAIL_COLUMNS = 200  # Erlang's last line may have kilobytes


class StartFailed(Exception):
    """Read the log it names: the component ended or was not ready in time."""

    def __init__(self, component: Component, reason: str) -> None:
        """Take the reason, the log and its last lines for the message."""
        self.reason = reason
        self.log = component.log
        self.lines = [shortened(line) for line in tail(component.log)]
        log_lines = "\n".join(f"    {line}" for line in self.lines)
        super().__init__(f"{reason}; log: {component.log}\n{log_lines}")


class Program:
    """The process of one component. Do not start it from two threads at once."""

    def __init__(self, component: Component) -> None:
        """Take the description; start nothing."""
        self.component = component
        self.process: subprocess.Popen[bytes] | None = None
        self.children: list[psutil.Process] = []

    @property
    def pid(self) -> int | None:
        """Return the process id while the process exists."""
        return self.process.pid if self.running() and self.process else None

    def running(self) -> bool:
        """Return whether the process exists, ready or not."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Prepare, spawn and wait until ready (a step: until it has exited with 0).

        Raises: StartFailed, with nothing left running.
        """
        self.component.prepare()
        self.spawn()
        try:
            self.await_ready()
        except BaseException:
            self.kill()
            raise

    def spawn(self) -> None:
        """Start the process in a session of its own; it gets the stop signal if we die."""
        component = self.component
        component.log.parent.mkdir(parents=True, exist_ok=True)
        with component.log.open("ab") as log:
            self.process = subprocess.Popen(
                tied_to_us(component),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=component.folder,
                env=dict(component.environment),
                start_new_session=True,
            )

    def await_ready(self) -> None:
        """Poll the readiness check until it holds. Raises: StartFailed."""
        deadline = time.monotonic() + self.component.ready_within_s
        while not self.is_ready():
            if time.monotonic() > deadline:
                message = f"not ready within {self.component.ready_within_s:.0f} s"
                raise StartFailed(self.component, message)
            time.sleep(POLL_S)

    def is_ready(self) -> bool:
        """Check once. Raises: StartFailed if the process has ended without success."""
        code = self.process.poll() if self.process else -signal.SIGKILL
        if code is None:
            return not self.component.step and answers(self.component)
        if self.component.step and code == 0:
            return True
        raise StartFailed(self.component, ended(code))

    def stop(self, within_s: float | None = None) -> None:
        """Stop the process by its own signal; kill what is left after the grace period."""
        if not self.running():
            return
        grace_s = self.component.stop_within_s if within_s is None else within_s
        self.signal(signal.SIGCONT)
        self.children = self.descendants()
        self.signal(self.component.stop_signal)
        self.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """End the process as a crash would, and its own children soon after."""
        if self.running():
            self.children = self.descendants()
            self.signal(signal.SIGKILL)
        self.wait(None)
        self.end_group()
        end_all(self.children)
        self.children = []

    def end_group(self) -> None:
        """Kill the rest of the process group: workers whose master is dead."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the process and its children: it accepts connections but answers nothing."""
        if self.pid:
            freeze(psutil.Process(self.pid))

    def resume(self) -> None:
        """Continue a paused process."""
        for process in self.family():
            with suppress(psutil.NoSuchProcess):  # a child may end while its parent wakes
                process.resume()

    def frozen(self) -> bool:
        """Return whether a signal has stopped the process, so that it does not answer."""
        with suppress(psutil.NoSuchProcess):
            return bool(self.pid and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process if it is still there."""
        if self.process is not None:
            self.process.send_signal(number)

    def wait(self, timeout_s: float | None) -> int | None:
        """Wait for the end; return None if it has not come in time, or if nothing was started."""
        if self.process is None:
            return None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def family(self) -> list[psutil.Process]:
        """Return the process and its descendants; nothing if it does not run."""
        return [psutil.Process(self.pid), *self.descendants()] if self.pid else []

    def descendants(self) -> list[psutil.Process]:
        """Return the children of the process and theirs."""
        try:
            return psutil.Process(self.pid).children(recursive=True) if self.pid else []
        except psutil.NoSuchProcess:
            return []


def freeze(process: psutil.Process) -> None:
    """Stop a process, then its children, so that it creates no more of them.

    A stop takes effect a moment later, and a child that was created in between would keep running.
    """
    with suppress(psutil.NoSuchProcess):
        process.suspend()
        deadline = time.monotonic() + _STOPS_WITHIN_S
        while process.status() not in _STOPPED and time.monotonic() < deadline:
            time.sleep(0.001)
        for child in process.children():
            freeze(child)


def tied_to_us(component: Component) -> tuple[str, ...]:
    """Set the parent-death signal in the program, after a change of user, which clears it."""
    tie = ("setpriv", "--pdeathsig", component.stop_signal.name.removeprefix("SIG"), "--")
    return (*component.as_user, *tie, *component.argv)


def answers(component: Component) -> bool:
    """Call the readiness check; a refused or broken connection means not yet."""
    try:
        return component.ready()
    except OSError:
        return False


def end_all(processes: list[psutil.Process]) -> None:
    """Wait for processes to end, then kill the rest."""
    _, alive = psutil.wait_procs(processes, timeout=ORPHANS_WITHIN_S)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def ended(code: int) -> str:
    """Return in words how a process ended."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def shortened(line: str) -> str:
    """Return a line cut to the terminal's width; the log has the whole line."""
    return line if len(line) <= TAIL_COLUMNS else f"{line[:TAIL_COLUMNS]} ..."


def tail(log: Path, lines: int = TAIL_LINES) -> list[str]:
    """Return the last lines of a log; none when there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []
