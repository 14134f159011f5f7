"""docs/custom-resource.md agrees with the schema and the code."""

import re
from pathlib import Path

import pytest

from orderservice_operator.crd import reference

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "custom-resource.md"
PACKAGE = ROOT / "operator" / "orderservice_operator"
# A literal reason of a condition stands behind its status, or where nobody scales the worker.
REASON = re.compile(r'(?:"(?:True|False|Unknown)"|Choice\(\s*None), "([A-Z]\w+)"')


def test_the_fields_are_those_of_the_schema() -> None:
    text = DOCUMENT.read_text()
    hint = "run `python -m orderservice_operator.crd --reference docs/custom-resource.md`"
    assert reference.with_fields(text) == text, hint
    assert text.count("| `") > 80


def _reasons() -> set[str]:
    folders = [PACKAGE / name for name in ("children", "control", "rabbitmq", "state")]
    texts = [path.read_text() for folder in folders for path in folder.glob("*.py")]
    return {reason for text in texts for reason in REASON.findall(text)}


def test_every_reason_of_a_condition_is_explained() -> None:
    reasons = _reasons() | {"Refused", "Unreachable", "RolledBack"}
    assert len(reasons) > 20
    text = DOCUMENT.read_text()
    assert not [reason for reason in sorted(reasons) if f"`{reason}`" not in text]


def test_every_field_that_breaks_a_convention_is_in_the_note_on_the_next_version() -> None:
    note, fields = DOCUMENT.read_text().split("\n## v1alpha1: ")[1].split("\n## Fields\n")
    unconventional = re.compile(r"^\| `(\w+)` \| (?:number|boolean|`[a-z])", re.MULTILINE)
    sections = re.split(r"^### `spec\.?(.*)`$", fields, flags=re.MULTILINE)[1:]
    names = {
        name
        for section, rows in zip(sections[::2], sections[1::2], strict=True)
        if not section.startswith("podTemplate")
        for name in unconventional.findall(rows)
    }
    assert {"samplerRatio", "stockCheck", "paused", "enabled"} <= names
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", note)] == []


@pytest.mark.parametrize("verb", ["plan", "status", "pause", "resume", "rollback", "crd"])
def test_every_verb_of_the_command_line_is_explained(verb: str) -> None:
    assert f"`orderctl {verb}" in DOCUMENT.read_text()
