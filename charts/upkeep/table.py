"""The table of a chart's values, from the comments above the keys."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

_KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):(.*)$")
_COMMENT = re.compile(r"^ *# ?(.*)$")


class Undocumented(Exception):
    """Write a comment above the key that the message names."""


class Row(NamedTuple):
    """One line of the table."""

    key: str
    default: str
    text: str


def markdown(values: str) -> str:
    """Return the table. Raises Undocumented."""
    lines = ["| value | default | |", "|---|---|---|"]
    lines += [f"| `{row.key}` | `{row.default}` | {row.text} |" for row in rows(values)]
    return "\n".join(lines)


def rows(values: str) -> Iterator[Row]:
    """Yield a row for every commented key. Raises Undocumented for a value without one."""
    defaults = yaml.safe_load(values)
    path: list[str] = []
    comment: list[str] = []
    inside = -1  # the indentation of a commented key: what is below is its default
    for line in values.splitlines():
        if match := _COMMENT.match(line):
            comment.append(match[1])
        elif match := _KEY.match(line):
            depth = len(match[1]) // 2
            if 0 <= inside < depth:
                continue
            path[depth:] = [match[2]]
            inside = depth if comment else -1
            if comment:
                yield Row(".".join(path), _default(defaults, path), " ".join(comment))
            elif match[3].strip():
                raise Undocumented(f"{'.'.join(path)} has no comment")
            comment = []
        else:
            comment = []


def _default(value: Any, path: list[str]) -> str:
    for key in path:
        value = value[key]
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
    return text.removesuffix("\n...").removesuffix("...").strip()
