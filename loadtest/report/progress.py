"""A line every few seconds while the load runs."""

import sys
from pathlib import Path
from typing import Final

from loadtest import timeline
from loadtest.faults import Event
from loadtest.locusts.counting import Report

_EVERY_S: Final = 5.0


class Progress:
    """Print the progress, from the timeline that the master writes."""

    def __init__(self, file: Path) -> None:
        """Take the file that Locust's master writes."""
        self._file, self._offset, self._told_s = file, 0, 0.0
        self._fresh: list[Report] = []
        self._users: dict[str, int] = {}

    def look(self) -> None:
        """Print the last seconds when a line is due."""
        fresh, self._offset = timeline.read_from(self._file, self._offset)
        self._fresh += fresh
        self._users |= {report.worker: report.users for report in fresh}
        now_s = self._fresh[-1].t if self._fresh else 0.0
        if now_s - self._told_s < _EVERY_S:
            return
        counts = timeline.window(self._fresh, 0, now_s + 1).get(timeline.ALL)
        of = timeline.figures_of(counts, now_s - self._told_s) if counts else {}
        self._told_s, self._fresh = now_s, []
        say(
            f"  {now_s:4.0f} s  {sum(self._users.values()):4} users  {of.get('rate', 0):6.0f} req/s"
            f"  p50 {of.get('p50_ms', 0):5.0f} ms  p99 {of.get('p99_ms', 0):5.0f} ms"
            f"  failed {of.get('failed', 0):.0f}"
        )


def event(happened: Event) -> None:
    """Print a fault with its second of the run."""
    say(f"  {happened.at_s:4.0f} s  ── {happened.text}")


def say(text: str) -> None:
    """Write a line at once."""
    print(text, flush=True)
    sys.stdout.flush()
