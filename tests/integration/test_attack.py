"""A short run of `make attack`, with a new seed each time."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from attack import documented, hooks, targets
from attack.load import Load
from attack.targets import Place, Target
from integration.handles import Database

# Two of the four targets are there, so half of the seeds are sent.
SEEDS, WITHIN_S = 6000, 6.0
EXAMPLES = 4


@pytest.fixture(scope="module")
def attacked(state: Path, database: Database, redis_url: str) -> Iterator[list[Target]]:
    kinds = [("meinheld", False), ("gthread", True)]
    with targets.running(Place(state, database.url, redis_url), kinds) as running:
        yield running


def test_no_generated_request_gets_a_5xx_or_ends_a_process(attacked: list[Target]) -> None:
    seed = secrets.randbelow(1_000_000_000)
    load = Load(attacked, seed, SEEDS, WITHIN_S)
    load.run(print)
    # Memory is judged by `make attack`: a run of seconds ends before caches are full.
    assert load.faults == [], f"make attack SEED={seed} INPUTS={SEEDS}"
    assert load.lost() == []
    assert load.count > 0


def test_requests_made_from_the_document_are_answered_as_it_says(attacked: list[Target]) -> None:
    seed = secrets.randbelow(1_000_000)
    as_documented, text = documented.check(attacked[1], EXAMPLES, seed, "fuzzing")
    assert as_documented, text


@pytest.mark.parametrize("total", [0.57, 0.5700000000000001, 19.999, 1e300, -1e27, float("inf")])
def test_any_number_that_schemathesis_draws_is_written(total: float) -> None:
    body = hooks.map_body(None, {"total": total})
    assert body == {"total": 0.57 if 0.56 < total < 0.58 else total}
