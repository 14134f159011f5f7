"""The model in docs/model is about this code: its life cycle is the code's own table."""

import pytest

from model.cases import FAIL, HOLD, Case
from model.lifecycle import FOLDER, PATH, written
from orders.domain.lifecycle import Event

ORDER = (FOLDER / "Order.tla").read_text()
BASE = (FOLDER / "Order.cfg").read_text()
BY_NAME = pytest.mark.parametrize("case", [*HOLD, *FAIL], ids=lambda case: case.name)


def test_the_models_life_cycle_is_the_codes() -> None:
    assert PATH.read_text() == written(), (
        "run `PYTHONPATH=services:tests python -m model.lifecycle`"
    )


def test_every_event_of_the_life_cycle_happens_in_the_model() -> None:
    """But for a person's word that only says why nothing more is paid back."""
    assert {event for event in Event if f'"{event}"' not in ORDER} == {Event.REFUND_DROPPED}


@BY_NAME
def test_a_case_asks_for_constants_and_properties_that_the_model_has(case: Case) -> None:
    lines = case.configuration(BASE).splitlines()
    for name, value in case.constants.items():
        assert f"  {name} = {value}" in lines
    for name in (*case.invariants, *case.properties):
        assert f"\n{name} ==" in ORDER
    assert case.fails in {None, *case.invariants, *case.properties}


def test_an_unknown_constant_is_refused() -> None:
    with pytest.raises(KeyError, match="Sweepers"):
        Case(name="x", why="", constants={"Sweepers": "TRUE"}).configuration(BASE)


def test_each_property_that_has_to_fail_holds_in_the_unchanged_model() -> None:
    names = {name for case in HOLD for name in (*case.invariants, *case.properties)}
    assert {case.fails for case in FAIL} <= names
