"""Cursors lead where they were made for, for whom they were made, and nowhere else."""

import datetime as dt
import itertools
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders.api.order_list import InvalidCursor, seal, sealing_key, unseal
from orders.database.orders import Position
from orders.domain.order import MAX_ID
from orders.settings import OrderSettings, load

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
    index = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.sampled_from(ALPHABET).filter(lambda letter: letter != cursor[index]))
    with pytest.raises(InvalidCursor):
        unseal(cursor[:index] + other + cursor[index + 1 :], user, KEY)


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


@pytest.mark.parametrize("length", [16, 64, 65, 1000])
def test_a_secret_may_have_any_length(length: int) -> None:
    position = Position(dt.datetime(2026, 1, 2, tzinfo=dt.UTC), 3)
    secret = b"s" * length
    cursor = seal(position, 4, sealing_key(secret))
    assert unseal(cursor, 4, sealing_key(secret)) == position
    with pytest.raises(InvalidCursor):
        unseal(cursor, 4, sealing_key(secret[:-1] + b"t"))


OLD, NEW = "the-old-key-of-some-length", "the-new-key-of-some-length"


def keys(secret: str) -> tuple[bytes, ...]:
    """Read a secret as the api does."""
    return load(OrderSettings, {"ORDERS_CURSOR_SECRET": secret}).cursor_keys


def test_a_key_is_replaced_without_a_cursor_that_is_refused() -> None:
    """While pods are replaced, each of two neighbouring steps meets the other's cursors."""
    steps = [OLD, f"{OLD} {NEW}", f"{NEW} {OLD}", NEW]
    position = Position(dt.datetime(2026, 1, 2, tzinfo=dt.UTC), 3)
    for key_before, key_after in itertools.pairwise(map(keys, steps)):
        for sender, receiver in [
            (key_before, key_before),
            (key_before, key_after),
            (key_after, key_before),
        ]:
            assert unseal(seal(position, 4, sender[0]), 4, *receiver) == position
    with pytest.raises(InvalidCursor):
        unseal(seal(position, 4, keys(OLD)[0]), 4, *keys(NEW))


@pytest.mark.parametrize(
    "secret", ["a passphrase with spaces", f"{OLD} short", f"{OLD} {NEW} {OLD}"]
)
def test_only_two_long_words_are_two_keys(secret: str) -> None:
    assert keys(secret) == (secret.encode(),)
