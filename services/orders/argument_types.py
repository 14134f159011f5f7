"""Types of command-line arguments that several commands take."""

import argparse
from typing import Final

_LONGEST_REASON: Final = 500  # the limit of an audit row


def reason(text: str) -> str:
    """Read a reason, up to the length that an audit row takes."""
    if not 0 < len(text) <= _LONGEST_REASON:
        raise argparse.ArgumentTypeError(f"expected 1 to {_LONGEST_REASON} characters")
    return text


def positive(text: str) -> int:
    """Read a number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError("expected a number above 0")
    return int(text)
