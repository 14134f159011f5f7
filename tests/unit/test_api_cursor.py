"""Cursors lead where they were made for, for whom they were made, and nowhere else."""

import datetime as dt
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders.api.cursor import InvalidCursor, seal, unseal
from orders.database.orders import Position
from orders.domain.order import MAX_ID

KEY = b"a key of some length"
ids = st.integers(1, MAX_ID)
FIRST, LAST = (dt.datetime(year, 1, 1) for year in (1970, 9999))  # noqa: DTZ001 as hypothesis wants
moments = st.datetimes(FIRST, LAST, timezones=st.just(dt.UTC))
positions = st.builds(Position, moments, ids)
ALPHABET = string.ascii_letters + string.digits + "-_"


@given(positions, ids)
def test_a_cursor_gives_back_its_position(position: Position, user: int) -> None:
    assert unseal(seal(position, user, KEY), user, KEY) == position


@settings(deadline=None)  # a busy machine is no fault
@given(positions, ids, st.data())
def test_no_altered_cursor_is_accepted(position: Position, user: int, data: st.DataObject) -> None:
    cursor = seal(position, user, KEY)
    place = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.sampled_from(ALPHABET).filter(lambda letter: letter != cursor[place]))
    with pytest.raises(InvalidCursor):
        unseal(cursor[:place] + other + cursor[place + 1 :], user, KEY)


@given(positions, ids, st.text(max_size=60))
def test_no_other_text_is_a_cursor(position: Position, user: int, text: str) -> None:
    cursor = seal(position, user, KEY)
    for invented in (text, cursor + text, text + cursor, cursor[: len(text)]):
        if invented != cursor:
            with pytest.raises(InvalidCursor):
                unseal(invented, user, KEY)


@given(positions, ids, ids)
def test_a_cursor_belongs_to_one_user(position: Position, user: int, other: int) -> None:
    if user != other:
        with pytest.raises(InvalidCursor):
            unseal(seal(position, user, KEY), other, KEY)


@pytest.mark.parametrize("decoration", ["{}=", "{}\n", " {}", "{}%3D", "{}\x00"])
def test_a_cursor_has_one_spelling(decoration: str) -> None:
    cursor = seal(Position(dt.datetime(2026, 1, 2, tzinfo=dt.UTC), 3), 4, KEY)
    with pytest.raises(InvalidCursor):
        unseal(decoration.format(cursor), 4, KEY)


def test_a_cursor_of_another_deployment_is_refused() -> None:
    cursor = seal(Position(dt.datetime(2026, 1, 2, tzinfo=dt.UTC), 3), 4, KEY)
    with pytest.raises(InvalidCursor):
        unseal(cursor, 4, b"another key of some length")
