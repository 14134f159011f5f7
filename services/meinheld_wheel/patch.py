"""Apply a unified diff exactly: no fuzz, no offsets, no new or removed files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@")


class PatchFailed(Exception):
    """Make the patch anew: it does not fit the source, in the place that the message names."""


class _Hunk(NamedTuple):
    start: int  # index of its first line in the old file
    lines: list[str]  # with their mark: space, minus or plus


def apply(patch: str, folder: Path) -> None:
    """Change the files below `folder` as the patch says; text before its first file is ignored.

    Raises PatchFailed before the file that does not fit is written.
    """
    files = re.split(r"^(?=diff --git )", patch, flags=re.MULTILINE)[1:]
    if not files:
        raise PatchFailed("the patch changes no file")
    for section in files:
        name = re.search(r"^\+\+\+ b/(\S+)$", section, re.MULTILINE)
        if name is None:
            raise PatchFailed(f"no file is named in {section[:80]!r}")
        path = folder / name[1]
        path.write_text(_patched(path.read_text(), section, name[1]))


def _patched(text: str, section: str, name: str) -> str:
    old = text.splitlines(keepends=True)
    new: list[str] = []
    position = 0
    for hunk in _hunks(section):
        new += old[position : hunk.start]
        position = hunk.start
        for line in hunk.lines:
            mark, content = line[:1], line[1:]
            if mark == "+":
                new.append(content)
                continue
            if old[position : position + 1] != [content]:
                raise PatchFailed(f"{name}, line {position + 1}: expected {content!r}")
            position += 1
            if mark == " ":
                new.append(content)
    return "".join(new + old[position:])


def _hunks(section: str) -> Iterator[_Hunk]:
    lines: list[str] | None = None
    start = 0
    for line in section.splitlines(keepends=True):
        header = _HUNK.match(line)
        if header is not None:
            if lines is not None:
                yield _Hunk(start, lines)
            start, lines = int(header[1]) - 1, []
        elif lines is not None and line[:1] in {" ", "+", "-"}:
            lines.append(line)
    if lines is not None:
        yield _Hunk(start, lines)
