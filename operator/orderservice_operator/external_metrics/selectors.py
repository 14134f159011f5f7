"""Label selectors in a query, such as `queue=order-processing,tier notin (a,b)`. Pure.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from orderservice_operator.errors import Permanent

LabelSet = Mapping[str, str]
Requirement = Callable[[LabelSet], bool]

_KEY: Final = r"(?P<key>[A-Za-z0-9][-A-Za-z0-9_./]*)"
_VALUE: Final = r"[-A-Za-z0-9_.]*"
_EQUALITY: Final = re.compile(rf"{_KEY}\s*(?P<operator>==?|!=)\s*(?P<value>{_VALUE})")
_SET: Final = re.compile(
    rf"{_KEY}\s+(?P<operator>in|notin)\s*\((?P<values>\s*{_VALUE}\s*(,\s*{_VALUE}\s*)*)\)"
)
_EXISTENCE: Final = re.compile(rf"(?P<absent>!?)\s*{_KEY}")
_COMMA: Final = re.compile(r",(?![^(]*\))")  # not one between parentheses
_LONGEST: Final = 1024  # a guess: an autoscaler asks with two labels


def matches(selector: str, labels: LabelSet) -> bool:
    """Return whether labels match; an empty selector matches all. Raises Permanent."""
    return all(requirement(labels) for requirement in requirements(selector))


def requirements(selector: str) -> list[Requirement]:
    """Parse a selector. Raises Permanent if it is malformed."""
    if len(selector) > _LONGEST:
        raise Permanent(f"a label selector must not be longer than {_LONGEST} characters")
    if not selector.strip():
        return []
    return [_requirement(term.strip()) for term in _COMMA.split(selector)]


def _requirement(text: str) -> Requirement:
    if match := _EQUALITY.fullmatch(text):
        return _one_of(match["key"], {match["value"]}, expected=match["operator"] != "!=")
    if match := _SET.fullmatch(text):
        values = {value.strip() for value in match["values"].split(",")}
        return _one_of(match["key"], values, expected=match["operator"] == "in")
    if match := _EXISTENCE.fullmatch(text):
        key, expected = match["key"], not match["absent"]
        return lambda labels: (key in labels) is expected
    raise Permanent(f"unable to parse requirement {text!r} of the label selector")


def _one_of(key: str, values: set[str], *, expected: bool) -> Requirement:
    """Return whether the label has one of the values; a missing label has none."""
    return lambda labels: (key in labels and labels[key] in values) is expected
