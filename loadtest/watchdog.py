"""End a load early, because a limit that is breached stays breached."""

from pathlib import Path
from typing import Final

from loadtest import timeline, verdict
from loadtest.faults import Event
from loadtest.locusts.counting import WorkerReport
from loadtest.scenario import Bound, Scenario, Threshold

# If this file exists, Locust's shape lets users finish and starts no new ones.
ABORT: Final = "abort"
# A percentile of fewer requests says nothing; and a start may be slow.
_FEWEST: Final = 100
_EARLIEST_S: Final = 5.0


class AbortWatchdog:
    """Compare the requests so far with the upper limits of a scenario."""

    def __init__(self, scenario: Scenario, further: tuple[Threshold, ...], folder: Path) -> None:
        """Take what must hold and the folder of the run."""
        self.events: list[Event] = []
        thresholds = (*scenario.thresholds, *further)
        # A lower limit is reached in time, and a phase is over when it is over.
        self._limits = [
            threshold
            for threshold in thresholds
            if threshold.bound is Bound.AT_MOST and "@" not in threshold.figure
        ]
        self._scenario, self._out = scenario, folder
        self._reports: list[WorkerReport] = []
        self._offset = 0

    def poll(self) -> None:
        """Make Locust end the load once a limit is breached. Cheap enough for twice a second."""
        new, self._offset = timeline.read_from(self._out / "timeline.jsonl", self._offset)
        # One report for all so far: to count an hour of them each time would not be cheap.
        names = timeline.window(self._reports + new, 0, float("inf"))
        names.pop(timeline.ALL, None)
        self._reports = [WorkerReport(names=names)]
        if not new or self.events or new[-1].t < _EARLIEST_S:
            return
        figures = timeline.figures(self._reports, self._scenario)
        if figures.get("all.requests", 0) < _FEWEST:
            return
        limits = [limit for limit in self._limits if limit.figure in figures]
        for check in verdict.check(limits, figures, local=True):
            if not check.holds:
                self.events.append(Event(new[-1].t, f"aborted: {check.text}, was {check.value:g}"))
                (self._out / ABORT).touch()
                return
