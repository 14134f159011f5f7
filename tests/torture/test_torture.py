"""A short run with a new plan each time, and every plan that ever failed."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from torture import plan as plans
from torture.plan import Plan
from torture.run import run

SECONDS = float(os.environ.get("TORTURE_SECONDS", "90"))
CUSTOMERS = 4
FAILED = sorted((Path(__file__).parent / "plans").glob("*.json"))

Say = Callable[[str], None]


def broken(plan: Plan, repeat: str, say: Say) -> dict[str, str]:
    say(f"\n{repeat}")
    outcome = run(plan, say, repeat=repeat)
    if outcome.broken:
        say(outcome.text)
    elif outcome.failures:
        pytest.skip(f"a fault could not be done: {outcome.failures[0]}")
    return outcome.broken


def test_no_promise_is_broken_by_faults_at_random(say: Say) -> None:
    plan = plans.plan(secrets.randbelow(1_000_000), SECONDS, CUSTOMERS)
    options = f'MINUTES={SECONDS / 60:g} SEED={plan.seed} ARGS="--customers {CUSTOMERS}"'
    assert broken(plan, f"make torture {options}", say) == {}


@pytest.mark.torture
@pytest.mark.parametrize("file", FAILED, ids=[file.stem for file in FAILED])
def test_what_was_broken_once_is_not_broken_again(file: Path, say: Say) -> None:
    assert broken(plans.decode(file.read_bytes()), f"make torture PLAN={file}", say) == {}
