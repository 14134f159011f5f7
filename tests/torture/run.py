"""One run: the stack, the customers, the plan, rest, the checks and the page."""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from devstack.settings import SOURCE
from failover import page
from failover import stack as stacks
from failover.checker import Verdict, check
from failover.clients import FIRST_MARK, Crowd, Pace
from failover.evidence import Evidence, gather
from failover.history import History
from torture import plan as plans
from torture.checks import AT_ONCE, CHECKS, EVENTUAL
from torture.faults import Conductor, Scene
from torture.plan import Plan
from torture.record import Pulse, TortureRecord
from torture.rig import Rig
from torture.shoppers import Haste, Shopper

# Beside the sources; not in version control.
FOLDER: Final = Path(__file__).parents[2] / ".torture"
FIRST_USER: Final = 70_001
PACE: Final = Pace(least_s=0.1, most_s=0.5, answer_within_s=20.0, give_up_after_s=60.0)
# At rest, or nothing changes any more: longer than the longest wait for a retry.
_REST_WITHIN_S: Final = 240.0
_UNCHANGED_S: Final = 40.0
# The same where no message waits anywhere: longer than a notification waits for its next try, and
# than the broker takes to count its messages.
_UNCHANGED_WITHOUT_MESSAGES_S: Final = 12.0
_FINAL_READS: Final = 400

Say = Callable[[str], None]


@dataclass
class Outcome:
    """The result of a run; `failures` are faults that could not be injected."""

    plan: Plan
    verdicts: list[Verdict]
    text: str
    folder: Path
    failures: list[str] = field(default_factory=list)

    @property
    def broken(self) -> dict[str, str]:
        """The first violation of each check that does not hold."""
        return {
            verdict.name: verdict.violations[0].text
            for verdict in self.verdicts
            if not verdict.holds
        }


def run(
    plan: Plan, say: Say, *, repeat: str, source: Path = SOURCE, hasty: bool = False
) -> Outcome:
    """Run a plan on its own stack and judge what clients saw; `hasty` as in `play`."""
    with running(say, source) as stage:
        return stage.play(plan, repeat, hasty=hasty)


@contextmanager
def running(say: Say, source: Path = SOURCE) -> "Iterator[Stage]":
    """Yield a stage on its own stack, which ends with the block."""
    began_s = time.monotonic()
    with stacks.started(partial(Rig, source=source), "orders-torture-") as rig:
        say(f"  the stack is up after {time.monotonic() - began_s:.0f} s")
        yield Stage(rig, say)


class Stage:
    """A stack on which plans are carried out one after another, each with customers of its own."""

    def __init__(self, rig: Rig, say: Say) -> None:
        self._rig, self._say = rig, say
        self._marks = itertools.count(FIRST_MARK)
        self._users = itertools.count(FIRST_USER, 100)

    def play(self, plan: Plan, repeat: str, *, hasty: bool = False) -> Outcome:
        """Carry a plan out, wait for rest and judge.

        `hasty` waits no longer once a promise is broken that no time mends, and less where no
        message is left that could mend another.
        """
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        history, pulse = History(FOLDER / f"{stamp}-{plan.seed}"), Pulse()
        (history.folder / "plan.json").write_bytes(plans.encode(plan))
        pulse.start()
        try:
            outcome = self._play(plan, history, pulse, repeat, hasty=hasty)
        except BaseException:
            stacks.keep_logs(self._rig, history.folder)
            raise
        finally:
            pulse.stop()
        if outcome.broken or outcome.failures or os.environ.get("DEVSTACK_KEEP"):
            stacks.keep_logs(self._rig, history.folder)
        return outcome

    def _play(
        self, plan: Plan, history: History, pulse: Pulse, repeat: str, *, hasty: bool
    ) -> Outcome:
        rig, haste = self._rig, Haste()
        conductor = Conductor(Scene(rig, haste, history, self._say), plan)
        crowd = Crowd(
            rig.door.port, history, plan.customers, self._marks, next(self._users), PACE,
            partial(Shopper, haste=haste),
        )  # fmt: skip
        with crowd:
            conductor.run()
        requests = len(history.entries)
        self._say(f"  {requests} requests, {len(history.faults)} faults; waiting for rest")
        evidence, rest_s = _rest(rig, history, pulse, hasty=hasty)
        _look_once_more(crowd)
        history.save_journal()
        (history.folder / "stalls.json").write_bytes(msgspec.json.encode(pulse.stalls))
        (history.folder / "evidence.json").write_bytes(msgspec.json.encode(evidence))
        record = TortureRecord(history.entries, evidence, history.faults, pulse.stalls)
        verdicts = check(record, CHECKS)
        text = _page(record, verdicts, plan, repeat, rig)
        text += f"  at rest after {rest_s:.1f} s; load {stacks.load_now()}\n"
        (history.folder / "page.txt").write_text(text)
        return Outcome(plan, verdicts, text, history.folder, conductor.failures)


def _rest(rig: Rig, history: History, pulse: Pulse, *, hasty: bool) -> tuple[Evidence, float]:
    """Wait until everything has ended, or nothing changes any more."""
    began_s = changed_s = time.monotonic()
    last: Evidence | None = None
    table = {name: CHECKS[name] for name in EVENTUAL}
    at_once = {name: CHECKS[name] for name in (AT_ONCE if hasty else ())}
    while True:
        evidence = gather(rig)
        now_s = time.monotonic()
        record = TortureRecord(history.snapshot(), evidence, history.faults, pulse.stalls)
        if all(verdict.holds for verdict in check(record, table)):
            return evidence, now_s - began_s
        if not all(verdict.holds for verdict in check(record, at_once)):
            return evidence, now_s - began_s
        if evidence != last:
            last, changed_s = evidence, now_s
        unchanged_s = now_s - changed_s - record.slack_s(time.time() - _UNCHANGED_S, time.time())
        if unchanged_s > _UNCHANGED_S or now_s - began_s > _REST_WITHIN_S:
            return evidence, now_s - began_s
        if hasty and unchanged_s > _UNCHANGED_WITHOUT_MESSAGES_S and not rig.messages():
            return evidence, now_s - began_s
        time.sleep(1.0)


def _look_once_more(crowd: Crowd) -> None:
    """Make every customer read its latest orders once all have ended."""
    share = _FINAL_READS // len(crowd.customers)
    for customer in crowd.customers:
        if isinstance(customer, Shopper):
            for order in customer.orders[-share:]:
                customer.look_finally(order)


def _page(
    record: TortureRecord, verdicts: Sequence[Verdict], plan: Plan, repeat: str, rig: Rig
) -> str:
    restarts = ", ".join(f"{name} {number}" for name, number in sorted(rig.restarts.items()))
    worst_s = max((stall.late_s for stall in record.stalls), default=0.0)
    parts = [
        page.render(f"torture, seed {plan.seed}", record, verdicts, repeat),
        f"  started again: {restarts or 'nothing'}",
        f"  the machine stood still for at most {worst_s:.2f} s ({len(record.stalls)} times)",
        "",
        *(f"  {line}" for line in plans.lines(plan)),
    ]
    return "\n".join(parts) + "\n"
