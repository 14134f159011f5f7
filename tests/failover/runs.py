"""One run from its first order to its page: customers, faults, verdicts."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from failover import page, promotions, stack
from failover.checker import Record, Verdict, check
from failover.clients import Crowd, Pace
from failover.history import History
from failover.settle import settled
from failover.stack import Stack

# Beside the sources, like the load tests' own; not in version control.
FOLDER: Final = Path(__file__).parents[2] / ".failover"
CUSTOMERS: Final = 6

Say = Callable[[str], None]


class Run:
    """The customers and records of one run on a stack, which may have seen others before."""

    def __init__(self, on: Stack, name: str, repeat: str, say: Say) -> None:
        self.stack, self.name, self._repeat, self.say = on, name, repeat, say
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        self.history = History(FOLDER / f"{stamp}-{name.replace(' ', '-')}")
        self.record: Record | None = None
        self.verdicts: list[Verdict] = []
        self.settled_after_s = 0.0

    @contextmanager
    def load(self, customers: int = CUSTOMERS, pace: Pace | None = None) -> Iterator[Crowd]:
        """Run customers while the block runs."""
        with promotions.crowd(self.stack, self.history, customers, pace) as crowd:
            yield crowd

    def conclude(self, within_s: float) -> list[Verdict]:
        """Wait for rest, check, say the page and keep it; return the verdicts that do not hold."""
        evidence, self.settled_after_s = settled(self.stack, self.history, within_s)
        self.history.save_journal()
        self.record = Record(self.history.entries, evidence, self.history.faults)
        self.verdicts = check(self.record)
        text = page.render(self.name, self.record, self.verdicts, self._repeat)
        text += f"  at rest after {self.settled_after_s:.1f} s; load {stack.load_now()}\n"
        (self.history.folder / "page.txt").write_text(text)
        self.say(text)
        failures = [verdict for verdict in self.verdicts if not verdict.holds]
        if failures or os.environ.get("DEVSTACK_KEEP"):
            stack.keep_logs(self.stack, self.history.folder)
            self.say(f"  histories and logs: {self.history.folder}")
        return failures


def broken_promises(verdicts: list[Verdict]) -> dict[str, str]:
    """Return the first violation of each check that does not hold."""
    return {verdict.name: verdict.violations[0].text for verdict in verdicts}
