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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from devstack.settings import SOURCE
from torture import plan as plans
from torture.__main__ import CLEAN, COULD_NOT_RUN, VIOLATED, say
from torture.checks import AT_ONCE
from torture.run import running

MUTANTS: Final = Path(__file__).parent / "mutants"
UNCHANGED: Final = "unchanged"  # the control: nothing is planted, and nothing may be found
BUDGET_S: Final = 300.0
ROUND_S: Final = 60.0
CUSTOMERS: Final = 6


class Finding(NamedTuple):
    """How a mutant was found: by which checks, after how many seconds; none: it survived."""

    mutant: str
    checks: tuple[str, ...]
    after_s: float
    text: str


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
    """Give a copy of the services with a mutant planted in it; without one, as they are."""
    with tempfile.TemporaryDirectory(prefix="orders-mutant-") as folder:
        services = Path(folder) / "services"
        shutil.copytree(SOURCE, services, ignore=shutil.ignore_patterns("__pycache__"))
        Path(folder).chmod(0o755)
        if mutant is not None:
            apply(mutant, services)
        yield services


def prove(mutant: str | None, seed: int, budget_s: float = BUDGET_S) -> Finding:
    """Torture a mutant, round after round, until a check sees it or the time is up."""
    name = mutant or UNCHANGED
    with mutated(mutant) as source, running(say, source) as stage:
        began_s = time.monotonic()
        for number in range(100):
            plan = plans.plan(seed + number, ROUND_S, CUSTOMERS)
            say(f"  {name}: round {number + 1}, seed {plan.seed}")
            outcome = stage.play(plan, f"make torture-proof MUTANT={name}", hasty=True)
            took_s = time.monotonic() - began_s
            for failure in outcome.failures:
                say(f"  could not be done: {failure}")
            if outcome.broken:
                # What time would have mended is less telling: the round did not wait for it.
                checks = sorted(outcome.broken, key=lambda check: check not in AT_ONCE)
                text = f"{checks[0]}: {outcome.broken[checks[0]]}"
                return Finding(name, tuple(checks), took_s, text)
            if took_s + ROUND_S > budget_s:
                break
    return Finding(name, (), time.monotonic() - began_s, "")


def main(argv: list[str] | None = None) -> int:
    """Return 0 if every mutant was found and nothing else, 1 if not, 2 if it was stopped."""
    chosen = _arguments(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    findings: list[Finding] = []
    try:
        for mutant in chosen.mutants or names():
            finding = prove(None if mutant == UNCHANGED else mutant, chosen.seed)
            findings.append(finding)
            say(_line(finding))
    except KeyboardInterrupt:
        say("torture-proof: stopped")
        return COULD_NOT_RUN
    say("")
    for finding in findings:
        say(_line(finding))
    wrong = [one for one in findings if bool(one.checks) == (one.mutant == UNCHANGED)]
    say(f"{len(findings) - len(wrong)} of {len(findings)} as it should be")
    return VIOLATED if wrong else CLEAN


def _line(finding: Finding) -> str:
    seen = ", ".join(finding.checks) or "nothing found"
    text = f"\n      {finding.text[:150]}" if finding.text else ""
    return f"  {finding.mutant:34}{finding.after_s:6.0f} s  {seen}{text}"


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="torture-proof", description=__doc__)
    parser.add_argument(
        "mutants", nargs="*", help="which (default: all); `unchanged`: none planted"
    )
    parser.add_argument("--seed", type=int, default=1000, help="of the first round (default: 1000)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main() or os.EX_OK)
