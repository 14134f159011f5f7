"""A short run with a new plan each time, and every plan that ever failed."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from torture import plan as plans
from torture.run import run

SECONDS = float(os.environ.get("TORTURE_SECONDS", "30"))
CUSTOMERS = 4
SEEDS = [
    line.split()
    for line in (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    if not line.startswith("#")
]

Say = Callable[[str], None]


def broken(seed: int, seconds: float, customers: int, say: Say) -> dict[str, str]:
    repeat = f'make torture MINUTES={seconds / 60:g} SEED={seed} ARGS="--customers {customers}"'
    say(f"\n{repeat}")
    outcome = run(plans.plan(seed, seconds, customers), say, repeat=repeat)
    if outcome.broken:
        say(outcome.text)
    elif outcome.failures:
        pytest.skip(f"a fault could not be done: {outcome.failures[0]}")
    return outcome.broken


def test_no_promise_is_broken_by_faults_at_random(say: Say) -> None:
    assert broken(secrets.randbelow(1_000_000), SECONDS, CUSTOMERS, say) == {}


@pytest.mark.torture
@pytest.mark.parametrize(("minutes", "seed"), [(line[0], line[1]) for line in SEEDS])
def test_what_was_broken_once_is_not_broken_again(minutes: str, seed: str, say: Say) -> None:
    assert broken(int(seed), float(minutes) * 60, 6, say) == {}
