"""Keepers: each starts one component after its dependencies, and restarts it after a crash."""

import threading
import time
from collections.abc import Callable

from devstack.component import Component
from devstack.program import Program, StartFailed, ended
from devstack.report import ProgressReport

# Doubled after each crash; reset when a component has run for long.
BACKOFF_S = 0.5
BACKOFF_MAX_S = 10.0
LONG_LIFE_S = 30.0
# How long a command waits for its result.
SWITCH_WITHIN_S = 45.0


class Keeper:
    """The thread that starts, watches and restarts one component.

    The thread lives as long as the stack: the kernel signals a program when the thread that started
    it ends.
    """

    def __init__(
        self,
        component: Component,
        needs: list["Keeper"],
        report: ProgressReport,
        on_failure: Callable[[], None],
    ) -> None:
        """Take the keepers of its dependencies, and a function to call if the first start fails."""
        self.component = component
        self.program = Program(component)
        self.needs = needs
        self.report = report
        self.failed = on_failure
        self.state = "waiting"
        self.restarts = 0
        self.since = time.monotonic()
        self.ready = threading.Event()
        self.changed = threading.Condition()
        self.wanted = not component.optional
        self.leaving = False
        self.once_ready = False
        self.thread = threading.Thread(target=self.run, name=component.name, daemon=True)

    def run(self) -> None:
        """Wait for the dependencies, then run the component again and again."""
        for need in self.needs:
            need.ready.wait()
        backoff_s = BACKOFF_S
        while self.await_wanted():
            begin = time.monotonic()
            if self.start() and self.component.step:
                return
            self.watch()
            backoff_s = BACKOFF_S if time.monotonic() - begin > LONG_LIFE_S else backoff_s
            if self.wanted and not self.leaving:
                self.enter("restarting")
                self.restarts += 1
                self.rest(backoff_s)
                backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)

    def await_wanted(self) -> bool:
        """Block while the component is switched off; return False when the stack stops."""
        with self.changed:
            if not self.wanted:
                self.enter("stopped")
                self.changed.notify_all()
            self.changed.wait_for(lambda: self.wanted or self.leaving)
            return not self.leaving

    def rest(self, seconds: float) -> None:
        """Wait before the next start, unless there will be none."""
        with self.changed:
            self.changed.wait_for(lambda: not self.wanted or self.leaving, seconds)

    def start(self) -> bool:
        """Start once and report the result; return False if it did not become ready."""
        begin = time.monotonic()
        try:
            self.begin()
        except (StartFailed, OSError, RuntimeError) as error:
            self.tell_failure(error)
            return False
        if not self.program.running() and not self.component.step:
            return False
        self.enter("done" if self.component.step else "ready")
        self.once_ready = True
        state = "restarted" if self.restarts else self.state
        self.report.event(
            self.component.name, state, time.monotonic() - begin, self.component.address
        )
        self.ready.set()
        return True

    def begin(self) -> None:
        """Prepare, spawn unless it was switched off, and wait until it is ready."""
        self.enter("starting")
        self.component.prepare()
        with self.changed:
            if not self.wanted or self.leaving:
                return
            self.program.spawn()
        self.program.await_ready()

    def tell_failure(self, error: Exception) -> None:
        """Report why a start failed; the first failure of all fails the stack."""
        self.program.kill()
        if not self.wanted or self.leaving:
            return
        self.enter("failed")
        self.report.event(self.component.name, "failed", None, str(error))
        if not self.once_ready and not self.component.optional:
            self.failed()

    def watch(self) -> None:
        """Wait for the end of the program, and report it unless it was requested."""
        code = self.program.wait(None)
        self.ready.clear()
        self.program.kill()
        if not self.wanted or self.leaving:
            self.enter("stopped")
        elif code is not None and self.state != "failed":
            self.enter("crashed")
            log = f"{ended(code)}; starting again; log: {self.component.log}"
            self.report.event(self.component.name, "crashed", None, log)

    def enter(self, state: str) -> None:
        """Change the state that `status` shows."""
        self.state = state
        self.since = time.monotonic()

    def switch_on(self) -> None:
        """Start the component and wait until it is ready, up to a limit."""
        with self.changed:
            self.wanted = True
            self.changed.notify_all()
        self.ready.wait(SWITCH_WITHIN_S)

    def switch_off(self) -> None:
        """Stop the component and keep it stopped."""
        with self.changed:
            self.wanted = False
            self.changed.notify_all()
        self.ready.clear()
        self.program.stop()
        with self.changed:
            self.changed.wait_for(lambda: self.state == "stopped", SWITCH_WITHIN_S)

    def pause(self) -> None:
        """Freeze the component's program; it keeps its connections."""
        self.program.pause()
        self.enter("paused")

    def resume(self) -> None:
        """Continue the frozen program."""
        self.program.resume()
        self.enter("ready")

    def kill(self) -> None:
        """End the program as a crash would; it is started again."""
        self.ready.clear()
        self.program.kill()

    def leave(self, deadline: float) -> None:
        """Stop the component for good, before a time of the monotonic clock."""
        begin, was_running = time.monotonic(), self.program.running()
        with self.changed:
            self.leaving = True
            self.changed.notify_all()
        self.program.stop(min(self.component.stop_within_s, max(deadline - begin, 0.5)))
        if was_running:
            self.report.event(self.component.name, "stopped", time.monotonic() - begin)
