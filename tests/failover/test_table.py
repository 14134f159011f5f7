"""The table of faults in docs/failover-tests.md names tests that exist."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs" / "failover-tests.md"
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCS.read_text())))


def test_every_row_names_a_test() -> None:
    rows = re.findall(r"^\| \d+ \|.*$", DOCS.read_text(), re.MULTILINE)
    assert rows
    assert all("::test_" in row for row in rows)


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_the_named_test_exists(file: str, name: str) -> None:
    assert f"\ndef {name}(" in (REPOSITORY / file).read_text()
