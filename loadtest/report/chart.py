"""Curves over the time of a run as SVG, drawn here: the report needs nothing from anywhere."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

import msgspec

Points = Sequence[tuple[float, float]]

WIDTH: Final = 960
HEIGHT: Final = 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 28, 26
_COLOURS: Final = (
    "#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#0a7ea4", "#bf3989", "#57606a",
)  # fmt: skip
_TICKS: Final = 4
_TIMES: Final = 8


class Band(msgspec.Struct, frozen=True):
    """A stretch of time to shade, or a moment to mark when both ends are the same."""

    text: str
    from_s: float
    until_s: float


class Chart(msgspec.Struct, frozen=True):
    """What to draw: a curve for each name over seconds."""

    title: str
    unit: str
    curves: Mapping[str, Points]
    seconds: float
    bands: Sequence[Band] = ()

    @property
    def top(self) -> float:
        """Give the upper end of the scale: a round number above everything."""
        values = [y for points in self.curves.values() for _, y in points]
        return nice(max([*values, 0.0]) * 1.05 or 1.0)


def nice(value: float) -> float:
    """Round up to 1, 2, 2.5, 4, 5 or 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 4, 5, 8, 10) if step * power >= value)


def svg(chart: Chart) -> str:
    """Return a chart as SVG."""
    elements = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}">',
        f'<text x="{_LEFT}" y="16" class="title">{escape(chart.title)}</text>',
        *(_band(chart, band, row) for row, band in enumerate(chart.bands)),
        *_scales(chart),
        *_curves(chart),
        "</svg>",
    ]
    return "\n".join(elements)


def _x(chart: Chart, t: float) -> float:
    return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * min(t / chart.seconds, 1), 1)


def _y(chart: Chart, value: float) -> float:
    return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * value / chart.top, 1)


def _scales(chart: Chart) -> list[str]:
    elements = []
    for tick in range(_TICKS + 1):
        value = chart.top * tick / _TICKS
        y = _y(chart, value)
        elements.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}" class="grid"/>'
        )
        elements.append(
            f'<text x="{_LEFT - 6}" y="{y + 4}" class="left">{value:g} {escape(chart.unit)}</text>'
        )
    step_s = nice(chart.seconds / _TIMES)
    for tick in range(int(chart.seconds / step_s) + 1):
        t = tick * step_s
        elements.append(f'<text x="{_x(chart, t)}" y="{HEIGHT - 8}" class="below">{t:g} s</text>')
    return elements


def _band(chart: Chart, band: Band, row: int) -> str:
    start, end = _x(chart, band.from_s), _x(chart, band.until_s)
    y = _TOP + 10 + 12 * (row % 6)
    text = f'<text x="{start + 3}" y="{y}" class="band">{escape(band.text)}</text>'
    if end - start < 1:
        return (
            f'<line x1="{start}" x2="{start}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" class="moment"/>'
            + text
        )
    return (
        f'<rect x="{start}" y="{_TOP}" width="{end - start:.1f}" '
        f'height="{HEIGHT - _TOP - _BOTTOM}" class="phase"/>{text}'
    )


def _curves(chart: Chart) -> list[str]:
    elements = []
    for number, (name, points) in enumerate(chart.curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        line = " ".join(f"{_x(chart, t)},{_y(chart, value)}" for t, value in points)
        y = _TOP + 14 + 16 * number
        elements.append(f'<polyline points="{line}" style="stroke:{colour}"/>')
        elements.append(
            f'<text x="{WIDTH - _RIGHT + 10}" y="{y}" style="fill:{colour}">{escape(name)}</text>'
        )
    return elements
