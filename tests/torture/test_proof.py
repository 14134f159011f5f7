"""The summary of a proof: what was found, and what should have been."""

from torture.proof import UNCHANGED, Finding, table


def test_a_mutant_has_to_be_found_and_nothing_in_the_unchanged_code() -> None:
    assert Finding("inbox-skipped", ("noted",), 61.2).right
    assert not Finding("inbox-skipped", (), 300.0).right
    assert Finding(UNCHANGED, (), 300.0).right
    assert not Finding(UNCHANGED, ("noted",), 61.2).right
    assert not Finding(UNCHANGED, (), 0.0, failure="the stack did not start").right


def test_findings_become_a_table_that_counts_what_is_as_it_should_be() -> None:
    findings = [
        Finding("lanes-dropped", (), 300.2, load="4.0"),
        Finding("inbox-skipped", ("noted", "ended"), 61.2, "noted: 3 orders", 1000, "4.0"),
    ]
    assert table(findings).splitlines() == [
        "",
        "| mutant | seen after, s | by | seed | load |",
        "|---|---|---|---|---|",
        "| `inbox-skipped` | 61 | `noted`, `ended` | 1000 | 4.0 |",
        "| `lanes-dropped` | 300 | nothing |  | 4.0 |",
        "",
        "1 of 2 as it should be",
    ]
