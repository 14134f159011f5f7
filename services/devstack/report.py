"""The output for people: a line for each event, and the table of `status`."""

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

COLOURS = {"ready": "32", "done": "32", "failed": "31", "crashed": "31", "restarted": "33"}
COLUMNS = ("component", "state", "pid", "uptime", "restarts", "address")


class ProgressReport:
    """Writes lines to a stream; a closed stream does not stop the stack."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        """Take the stream; on a terminal, words have colours."""
        self.out = stream
        self.coloured = stream.isatty()

    def event(self, name: str, event: str, took_s: float | None = None, detail: str = "") -> None:
        """Write one event of one component."""
        took = "" if took_s is None else f"{took_s:5.1f} s"
        self.line(f"  {name:<18}{self.paint(event, 10)}{took:>8}  {detail}".rstrip())

    def paint(self, text: str, width: int) -> str:
        """Pad a text and colour it."""
        colour = COLOURS.get(text)
        padded = f"{text:<{width}}"
        return f"\x1b[{colour}m{padded}\x1b[0m" if self.coloured and colour else padded

    def line(self, text: str = "") -> None:
        """Write a line at once."""
        with suppress(OSError, ValueError):
            self.out.write(text + "\n")
            self.out.flush()


def observed(ports: Mapping[str, int], rules: Path, left_out: str = "") -> str:
    """Return the addresses of Prometheus and Alertmanager, and the alert that is left out."""
    prometheus = f"http://127.0.0.1:{ports['prometheus']}"
    note = f", without {left_out}: this stack has no operator" if left_out else ""
    lines = [
        f"  Prometheus     {prometheus}/graph      alerts {prometheus}/classic/alerts",
        f"  Alertmanager   http://127.0.0.1:{ports['alertmanager']}/api/v2/alerts",
        f"  rules          {rules}{note}",
    ]
    return "\n".join(lines)


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Lay rows out in columns below their headings."""
    lines = [COLUMNS, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def duration(seconds: float) -> str:
    """Return a duration in its two largest units."""
    minutes, remainder = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {remainder} s" if minutes else f"{remainder} s"
