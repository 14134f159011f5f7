"""The page on replacing secrets names every secret there is, and tests that exist."""

import re
from pathlib import Path

from orders.settings import describe

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/rotation.md").read_text()
DEFINITION = REPOSITORY / "operator/orderservice_operator/crd/orderservices.yaml"


def rows() -> list[list[str]]:
    """Return the cells of the table, a secret each."""
    _, _, *lines = re.findall(r"^\|(.*)\|$", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def test_every_setting_that_holds_a_secret_is_in_the_table() -> None:
    secrets = [
        setting.name
        for setting in describe()
        if setting.description.endswith("Secret.")
        or setting.name.endswith(("_TOKEN_FILE", "_CERTIFICATE_FILE"))
    ]
    assert len(secrets) > 10
    named = " ".join(row[0] for row in rows())
    assert [name for name in secrets if f"`{name}`" not in named] == []


def test_every_field_of_the_resource_that_names_a_secret_is_in_the_table() -> None:
    fields = set(re.findall(r"\b(\w*[sS]ecretRef):", DEFINITION.read_text()))
    assert len(fields) > 5
    named = " ".join(row[0] for row in rows())
    assert [field for field in sorted(fields) if field not in named] == []


def test_every_row_says_how_and_names_a_test_or_that_there_is_none() -> None:
    for _, holder, method, how, tests in rows():
        assert holder, how
        assert method in {"roll-out", "file", "fetched", "read again", "by itself"}
        assert tests == "–" or re.findall(r"test_\w+\.py", tests), how
        for path in re.findall(r"`([\w/]+\.py)`", tests):
            assert (REPOSITORY / "tests" / path).exists(), path
