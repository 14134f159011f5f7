"""Colours of text on a terminal; everywhere else it stays plain."""

import os
from typing import Final, TextIO

import msgspec

_CODES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Style(msgspec.Struct, frozen=True):
    """Colours text, or leaves it as it is."""

    coloured: bool

    def __call__(self, text: str, *names: str) -> str:
        """Return the text in the named colours and weights."""
        if not self.coloured or not text or not names:
            return text
        codes = ";".join(_CODES[name] for name in names)
        return f"\x1b[{codes}m{text}\x1b[0m"


def style(when: str, stream: TextIO) -> Style:
    """Return the style for a stream; `when` is auto, always or never.

    Source: https://no-color.org
    """
    if when != "auto":
        return Style(when == "always")
    colours = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Style(colours and stream.isatty())
