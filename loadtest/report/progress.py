"""A line every few seconds while the load runs."""

import sys
from pathlib import Path
from typing import Final

from loadtest import timeline
from loadtest.faults import Event
from loadtest.locusts.counting import WorkerReport

_EVERY_S: Final = 5.0


class Progress:
    """Print the progress, from the timeline that the master writes."""

    def __init__(self, file: Path) -> None:
        """Take the file that Locust's master writes."""
        self._file, self._offset, self._printed_s = file, 0, 0.0
        self._reports: list[WorkerReport] = []
        self._users: dict[str, int] = {}

    def poll(self) -> None:
        """Print the last seconds when a line is due."""
        new, self._offset = timeline.read_from(self._file, self._offset)
        self._reports += new
        self._users |= {report.worker: report.users for report in new}
        now_s = self._reports[-1].t if self._reports else 0.0
        if now_s - self._printed_s < _EVERY_S:
            return
        counts = timeline.window(self._reports, 0, now_s + 1).get(timeline.ALL)
        figures = timeline.figures_of(counts, now_s - self._printed_s) if counts else {}
        self._printed_s, self._reports = now_s, []
        say(
            f"  {now_s:4.0f} s  {sum(self._users.values()):4} users"
            f"  {figures.get('rate', 0):6.0f} req/s"
            f"  p50 {figures.get('p50_ms', 0):5.0f} ms  p99 {figures.get('p99_ms', 0):5.0f} ms"
            f"  failed {figures.get('failed', 0):.0f}"
        )


def event(happened: Event) -> None:
    """Print a fault with its second of the run."""
    say(f"  {happened.at_s:4.0f} s  ── {happened.text}")


def say(text: str) -> None:
    """Write a line at once."""
    print(text, flush=True)
    sys.stdout.flush()
