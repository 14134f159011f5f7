"""The arithmetic of `make bench`: turns, medians, ratios within a round."""

import pytest

from loadtest.bench.pairs import ratio, spread, turns


def test_every_other_round_goes_backwards() -> None:
    assert list(turns("ab", 3)) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]


def test_a_ratio_is_taken_round_by_round_before_the_median() -> None:
    own_ratio, peer_values = [10.0, 30.0, 90.0], [20.0, 30.0, 30.0]
    quotient = ratio(own_ratio, peer_values)
    assert (quotient.median, quotient.low, quotient.high) == (1.0, 0.5, 3.0)


def test_what_slows_both_alike_does_not_change_their_ratio() -> None:
    slow = [1.0, 0.1, 0.5, 0.9]
    quotient = ratio([200 * share for share in slow], [400 * share for share in slow])
    assert [quotient.low, quotient.high] == pytest.approx([0.5, 0.5])


def test_the_median_of_an_even_number_lies_between_the_two_in_the_middle() -> None:
    assert spread([4.0, 1.0, 2.0, 8.0]).median == 3.0


def test_rounds_that_do_not_match_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio([1.0, 2.0], [1.0])
