"""Show that a torture run finds faults: plant each mutant, one at a time, and torture it.

A mutant is a small patch of the services. The same plans that find nothing in the unchanged code
must find every one of them within five minutes of load.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from devstack.settings import SOURCE
from failover.stack import load_now
from torture import plan as plans
from torture.__main__ import CLEAN, COULD_NOT_RUN, VIOLATED, say
from torture.checks import AT_ONCE
from torture.plan import Plan
from torture.run import FOLDER, running
from torture.shrink import shrink_for

MUTANTS: Final = Path(__file__).parent / "mutants"
# What was found so far, for --resume.
RESULTS: Final = FOLDER / "proof.json"
UNCHANGED: Final = "unchanged"  # the control: nothing is planted, and nothing may be found
BUDGET_S: Final = 300.0
ROUND_S: Final = 60.0
CUSTOMERS: Final = 6


class Finding(msgspec.Struct, frozen=True):
    """A mutant's result: the checks that found it, after how many seconds; none: it survived.

    `failure`: why it could not be tried.
    """

    mutant: str
    checks: tuple[str, ...]
    after_s: float
    text: str = ""
    seed: int = 0
    load: str = ""
    failure: str = ""
    plan: Plan | None = None

    @property
    def right(self) -> bool:
        """Whether a mutant was found, or the unchanged code passed."""
        return not self.failure and bool(self.checks) != (self.mutant == UNCHANGED)


def names() -> list[str]:
    """Return the mutants by name."""
    return sorted(path.stem for path in MUTANTS.glob("*.patch"))


def apply(mutant: str, services: Path) -> None:
    """Apply a mutant's patch to a copy of the services. Raises CalledProcessError."""
    patch = MUTANTS / f"{mutant}.patch"
    subprocess.run(
        ["git", "apply", "--whitespace=nowarn", str(patch)],
        cwd=services.parent, check=True, capture_output=True,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(services.parent.parent)},
    )  # fmt: skip


@contextmanager
def mutated(mutant: str | None) -> Iterator[Path]:
    """Yield a copy of the services with a mutant in it; without one, as they are."""
    with tempfile.TemporaryDirectory(prefix="orders-mutant-") as folder:
        services = Path(folder) / "services"
        shutil.copytree(SOURCE, services, ignore=shutil.ignore_patterns("__pycache__"))
        Path(folder).chmod(0o755)
        if mutant is not None:
            apply(mutant, services)
        yield services


def prove(mutant: str, source: Path, seed: int, budget_s: float = BUDGET_S) -> Finding:
    """Torture services, round after round, until a check sees a fault or the time is up."""
    with running(say, source) as stage:
        began_s = time.monotonic()
        for number in range(100):
            plan = plans.plan(seed + number, ROUND_S, CUSTOMERS)
            say(f"  {mutant}: round {number + 1}, seed {plan.seed}")
            outcome = stage.play(plan, f"make torture-proof MUTANT={mutant}", hasty=True)
            took_s = time.monotonic() - began_s
            for failure in outcome.failures:
                say(f"  could not be done: {failure}")
            if outcome.broken:
                # The round did not wait for what time may have mended.
                at_once = [check for check in outcome.broken if check in AT_ONCE]
                checks = at_once or list(outcome.broken)
                text = f"{checks[0]}: {outcome.broken[checks[0]]}"
                return Finding(
                    mutant, tuple(checks), took_s, text, plan.seed, load_now(), plan=plan
                )
            if took_s + ROUND_S > budget_s:
                break
    return Finding(mutant, (), time.monotonic() - began_s, load=load_now())


def tried(mutant: str, seed: int, shrink_minutes: float) -> Finding:
    """Plant a mutant and run plans on it; on request, shrink the plan that found it."""
    with mutated(None if mutant == UNCHANGED else mutant) as source:
        try:
            finding = prove(mutant, source, seed)
        except Exception as error:  # noqa: BLE001 the others are tried all the same
            say(traceback.format_exc())
            return Finding(mutant, (), 0.0, failure=repr(error)[:300])
        if finding.plan is not None and shrink_minutes:
            _shrink(finding, finding.plan, shrink_minutes, source)
    return finding


def _shrink(finding: Finding, plan: Plan, minutes: float, source: Path) -> None:
    began_s = time.monotonic()
    small = shrink_for(plan, finding.checks, minutes, say, source)
    say(
        f"  {finding.mutant}: from {len(plan.faults)} faults and {plan.customers} customers to "
        f"{len(small.faults)} and {small.customers} in {(time.monotonic() - began_s) / 60:.0f} min"
    )
    for line in plans.lines(small):
        say(line)


def main(argv: list[str] | None = None) -> int:
    """Return 0 if every mutant was found and nothing else, 1 if not, 2 if it was stopped."""
    chosen = _arguments(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    mutants = chosen.mutants or names()
    findings = _earlier() if chosen.resume else {}
    stopped = False
    try:
        for mutant in mutants:
            if mutant in findings and findings[mutant].right:
                continue
            findings[mutant] = tried(mutant, chosen.seed, chosen.shrink)
            say(_line(findings[mutant]))
            FOLDER.mkdir(exist_ok=True)
            RESULTS.write_bytes(msgspec.json.encode(list(findings.values())))
    except KeyboardInterrupt:
        say("torture-proof: stopped; ARGS=--resume goes on")
        stopped = True
    concerned = [findings[mutant] for mutant in mutants if mutant in findings]
    say(table(concerned))
    if stopped:
        return COULD_NOT_RUN
    return CLEAN if all(finding.right for finding in concerned) else VIOLATED


def _earlier() -> dict[str, Finding]:
    """Return what an earlier proof found, by mutant."""
    if not RESULTS.exists():
        return {}
    earlier = msgspec.json.decode(RESULTS.read_bytes(), type=list[Finding])
    return {finding.mutant: finding for finding in earlier}


def table(findings: Sequence[Finding]) -> str:
    """Return findings as a table in Markdown, and how many are as they should be."""
    rows = ["", "| mutant | seen after, s | by | seed | load |", "|---|---|---|---|---|"]
    for finding in sorted(findings, key=lambda finding: finding.mutant):
        by = ", ".join(f"`{check}`" for check in finding.checks) or _without_checks(finding)
        rows.append(
            f"| `{finding.mutant}` | {finding.after_s:.0f} | {by} | {finding.seed or ''} | "
            f"{finding.load} |"
        )
    right_count = sum(finding.right for finding in findings)
    return "\n".join([*rows, "", f"{right_count} of {len(findings)} as it should be"])


def _without_checks(finding: Finding) -> str:
    return "could not be tried" if finding.failure else "nothing"


def _line(finding: Finding) -> str:
    result = ", ".join(finding.checks) or finding.failure or "nothing found"
    text = f"\n      {finding.text[:150]}" if finding.text else ""
    return f"  {finding.mutant:34}{finding.after_s:6.0f} s  {result}{text}"


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="torture-proof", description=__doc__)
    parser.add_argument(
        "mutants", nargs="*", metavar="mutant",
        help="which (default: all); `unchanged`: none planted",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=1000, help="of the first round (default: 1000)")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what the last proof found already"
    )
    parser.add_argument(
        "--shrink", type=float, default=0.0, metavar="MINUTES",
        help="cut the plan that found a mutant down for so long (default: not)",
    )  # fmt: skip
    chosen = parser.parse_args(argv)
    unknown = {*chosen.mutants} - {*names(), UNCHANGED}
    if unknown:
        parser.error(f"there is no mutant {', '.join(sorted(unknown))}")
    return chosen


if __name__ == "__main__":
    sys.exit(main() or os.EX_OK)
