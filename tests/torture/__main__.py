"""Break a whole stack at random while customers shop, and check all they were promised."""

import argparse
import os
import secrets
import signal
import sys
from pathlib import Path

import msgspec

from torture import plan as plans
from torture.plan import Plan
from torture.run import Outcome, run
from torture.shrink import shrink_for

CLEAN, VIOLATED, COULD_NOT_RUN = 0, 1, 2
# A run that failed is shrunk for so long by itself, unless it was long.
SHRINK_MINUTES, SHORT_S = 15.0, 600.0


def main(argv: list[str] | None = None) -> int:
    """Return 0 if every promise was kept, 1 if one was broken, 2 if it could not be tried."""
    chosen = _arguments(argv)
    # Whoever ends it by its process id wants its servers ended, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        plan = _plan(chosen)
    except (OSError, msgspec.MsgspecError) as error:
        say(f"torture: the plan cannot be read: {error}")
        return COULD_NOT_RUN
    if chosen.print_plan:
        sys.stdout.buffer.write(plans.encode(plan))
        return CLEAN
    say(f"torture: seed {plan.seed}, {plan.customers} customers for {plan.length_s:g} s")
    try:
        outcome = run(plan, say, repeat=_repeat(chosen, plan))
        code = judge(outcome)
        if outcome.broken:
            _shrink(outcome, _minutes_to_shrink(chosen, plan))
    except KeyboardInterrupt:
        say("torture: stopped")
        return COULD_NOT_RUN
    except Exception as error:  # noqa: BLE001 whatever it is, nothing was judged
        say(f"torture: could not run: {error!r}")
        return COULD_NOT_RUN
    return code


def _shrink(outcome: Outcome, minutes: float) -> None:
    if not minutes:
        return
    small = shrink_for(outcome.plan, list(outcome.broken), minutes, say)
    file = outcome.folder / "shrunk.json"
    file.write_bytes(plans.encode(small))
    for line in plans.lines(small):
        say(line)
    say(f"  again: make torture PLAN={file}")


def _minutes_to_shrink(chosen: argparse.Namespace, plan: Plan) -> float:
    """Return the given minutes; else some after a short run, and none after a long one."""
    if chosen.shrink is not None:
        return float(chosen.shrink)
    return SHRINK_MINUTES if plan.length_s <= SHORT_S else 0.0


def judge(outcome: Outcome) -> int:
    """Print the report and return the exit code."""
    say(outcome.text)
    for failure in outcome.failures:
        say(f"  could not be done: {failure}")
    if outcome.broken:
        say(f"  histories, logs and plan: {outcome.folder}")
        return VIOLATED
    return COULD_NOT_RUN if outcome.failures else CLEAN


def say(text: str) -> None:
    """Print a line without buffering it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="length of the load (default: 5)")
    parser.add_argument("--seed", type=int, help="plan to make (default: a new one)")
    parser.add_argument("--customers", type=int, default=6, help="clients (default: 6)")
    parser.add_argument("--plan", type=Path, help="a plan as JSON, instead of a seed")
    parser.add_argument(
        "--shrink", type=float, metavar="MINUTES",
        help="cut a failing plan down for so long; 0: not (default: 15 after at most 10 minutes)",
    )  # fmt: skip
    parser.add_argument("--print-plan", action="store_true", help="print the plan as JSON and end")
    return parser.parse_args(argv)


def _plan(chosen: argparse.Namespace) -> Plan:
    if chosen.plan is not None:
        return plans.decode(chosen.plan.read_bytes())
    seed = secrets.randbelow(1_000_000) if chosen.seed is None else chosen.seed
    return plans.plan(seed, chosen.minutes * 60, chosen.customers)


def _repeat(chosen: argparse.Namespace, plan: Plan) -> str:
    if chosen.plan is not None:
        return f"make torture PLAN={chosen.plan}"
    return f"make torture MINUTES={chosen.minutes:g} SEED={plan.seed}"


if __name__ == "__main__":
    sys.exit(main() or os.EX_OK)
