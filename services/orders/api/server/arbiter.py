"""gunicorn's master, taught to drain before it stops and to keep the admin process."""

import time
from typing import Any

from gunicorn.arbiter import Arbiter

from orders.api.server.admin_process import AdminProcess
from orders.api.server.master_state import MasterState


class ApiArbiter(Arbiter):  # type: ignore[misc] # gunicorn ships no types
    """The master process of the API."""

    def __init__(self, app: Any, admin: AdminProcess, state: MasterState) -> None:
        super().__init__(app)
        self._admin, self._state = admin, state
        self._stop_at = float("inf")

    def manage_workers(self) -> None:
        """Repair what is missing; gunicorn calls this at each turn of its loop, once a second."""
        super().manage_workers()
        self._state.beat(_last_beat(worker) for worker in self.WORKERS.values())
        self._admin.keep_alive(self.LISTENERS)
        if time.monotonic() >= self._stop_at:
            raise StopIteration  # gunicorn's way to begin its graceful stop

    def spawn_worker(self) -> int:
        """Start one worker; gunicorn starts up to 256 of them in one turn, 0.1 s apart."""
        self._state.beat_alone()
        pid: int = super().spawn_worker()
        return pid

    def handle_term(self) -> None:
        """Make readiness false, wait for the load balancers to notice, then stop gracefully."""
        self._state.drain()
        delay_s = self.app.drain_delay_s
        self._stop_at = min(self._stop_at, time.monotonic() + delay_s)

    def handle_int(self) -> None:
        """Ctrl-C: stop without the wait."""
        self._state.drain()
        super().handle_int()

    def handle_quit(self) -> None:
        """SIGQUIT: stop without the wait."""
        self._state.drain()
        super().handle_quit()


def _last_beat(worker: Any) -> float:
    try:
        beat: float = worker.tmp.last_update()
    except (OSError, ValueError):  # reaped a moment ago
        return 0.0
    return beat
