"""Draw the dashboards with real data, without Grafana.

`python -m orderservice_dashboards.preview PROMETHEUS_URL FOLDER MINUTES` writes a PNG for each.
Layout, titles, queries, units, thresholds and data are those of the dashboards; the looks are not
Grafana's.
"""

import datetime as dt
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import msgspec
import requests

mpl.use("agg")
from matplotlib import dates, ticker
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from orderservice_observability import dashboards

# What Grafana puts in place of its variables: everything.
CHOSEN: Final = {
    "$namespace": ".*",
    "$service": "orders(-admin)?",
    "$instance": ".*",
    "$__rate_interval": "30s",
}
COLOURS: Final = {"green": "#56a64b", "orange": "#f2a13a", "red": "#e02f44"}
LINES: Final = (
    "#3274d9",
    "#56a64b",
    "#f2a13a",
    "#8f3bb8",
    "#e02f44",
    "#33a2b8",
    "#a16f3c",
    "#888888",
)
BACK, INK = "#f4f5f7", "#24292e"
COLUMN_IN, ROW_IN, DPI = 0.62, 0.34, 72
MOST_SERIES: Final = 8
MOST_BYTES: Final = 200_000

Json = dict[str, Any]
Box = tuple[float, float, float, float]


class Source:
    """A Prometheus server and the period to show."""

    def __init__(self, url: str, minutes: float) -> None:
        self._session = requests.Session()
        self._url, self._range = url, f"{round(minutes * 60)}s"
        self.until = time.time()
        self.since = self.until - minutes * 60

    def series(self, expression: str) -> list[Json]:
        """Return the series of an expression over the period."""
        step = max(1.0, (self.until - self.since) / 240)
        return self._ask("query_range", expression, start=self.since, end=self.until, step=step)

    def now(self, expression: str) -> list[Json]:
        """Return the present values of an expression."""
        return self._ask("query", expression, time=self.until)

    def _ask(self, endpoint: str, expression: str, **parameters: float) -> list[Json]:
        query: dict[str, str | float] = dict(parameters)
        text = expression.replace("$__range", self._range)
        for variable, value in CHOSEN.items():
            text = text.replace(variable, value)
        query["query"] = text
        reply = self._session.get(f"{self._url}/api/v1/{endpoint}", params=query, timeout=30)
        reply.raise_for_status()
        results: list[Json] = reply.json()["data"]["result"]
        return results


def main(url: str, folder: Path, minutes: float) -> None:
    """Write a PNG of each dashboard."""
    source = Source(url, minutes)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in dashboards.texts().items():
        figure = drawn(msgspec.json.decode(text), source)
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=DPI, facecolor=BACK, pil_kwargs={"optimize": True})
        plt.close(figure)
        line = f"{path}  {path.stat().st_size // 1000} kB"
        sys.stdout.write(line + ("  TOO LARGE\n" if path.stat().st_size > MOST_BYTES else "\n"))


def drawn(board: Json, source: Source) -> Figure:
    """Draw one dashboard as a figure."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"]) + 2
    figure = plt.figure(figsize=(24 * COLUMN_IN, rows * ROW_IN))
    figure.text(0.01, 1 - 0.9 / rows, board["title"], size=15, weight="bold", color=INK)
    shown_at = dt.datetime.fromtimestamp(source.until, dt.UTC)
    label = f"preview, drawn by matplotlib from the data of a run, {shown_at:%Y-%m-%d %H:%M} UTC"
    figure.text(0.99, 1 - 0.9 / rows, label, size=9, color="#8a8f98", ha="right", style="italic")
    for panel in board["panels"]:
        position = panel["gridPos"]
        top = 1 - (position["y"] + 2) / rows
        if panel["type"] == "row":
            figure.text(0.01, top - 0.75 / rows, panel["title"], size=11, color="#5a6070")
            continue
        left, width, height = position["x"] / 24, position["w"] / 24, position["h"] / rows
        _panel(figure, panel, (left + 0.004, top - height, width - 0.008, height * 0.97), source)
    return figure


def _panel(figure: Figure, panel: Json, box: Box, source: Source) -> None:
    left, bottom, width, height = box
    card = figure.add_axes((left, bottom, width, height))
    card.set_xticks([])
    card.set_yticks([])
    for spine in card.spines.values():
        spine.set_color("#dcdfe4")
    title = card.text(0.012, 0.965, panel["title"], size=9, weight="bold", va="top", color=INK)
    title.set_transform(card.transAxes)
    inner = (left + width * 0.02, bottom + height * 0.04, width * 0.96, height * 0.82)
    _KINDS[panel["type"]](figure, panel, inner, source)


def _results(panel: Json, ask: Any) -> Iterator[tuple[str, Json]]:
    """Yield each series with its name."""
    for target in panel["targets"]:
        for sample in ask(target["expr"]):
            yield _named(target["legendFormat"], sample["metric"]), sample


def _named(legend: str, labels: Json) -> str:
    return re.sub(
        r"\{\{\s*(\w+)\s*\}\}", lambda match: str(labels.get(match[1], "")), legend
    ).strip()


def _timeseries(figure: Figure, panel: Json, box: Box, source: Source) -> None:
    left, bottom, width, height = box
    axes = figure.add_axes(
        (left + width * 0.09, bottom + height * 0.27, width * 0.9, height * 0.68)
    )
    drawn_series = [
        (name, [(at, float(value)) for at, value in sample["values"]])
        for name, sample in _results(panel, source.series)
    ]
    maximum = _lines(axes, drawn_series)
    unit = panel["fieldConfig"]["defaults"]["unit"]
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is not None and 0 < step["value"] <= maximum * 1.6:
            axes.axhline(step["value"], color=COLOURS[step["color"]], linestyle="--", linewidth=0.9)
    top = maximum * 1.12 if maximum > 0 else 1.0
    axes.set_ylim(bottom=-top / 40, top=top)  # a line at nought shows
    axes.set_xlim(*_times([source.since, source.until]))
    clock = dates.DateFormatter("%H:%M")  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(clock)
    axes.xaxis.set_major_locator(dates.AutoDateLocator(maxticks=6))  # type: ignore[no-untyped-call]
    axes.yaxis.set_major_locator(ticker.MaxNLocator(4))
    axes.yaxis.set_major_formatter(lambda value, _: _written(value, unit))
    axes.tick_params(labelsize=7, colors="#5a6070", length=2)
    axes.grid(visible=True, color="#eceef1", linewidth=0.7)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    _legend(axes, drawn_series)


def _lines(axes: Any, drawn_series: list[tuple[str, list[tuple[float, float]]]]) -> float:
    maximum = 0.0
    for number, (_, points) in enumerate(drawn_series):
        finite = [(at, value) for at, value in points if abs(value) < float("inf")]
        maximum = max([maximum, *(value for _, value in finite if value == value)])  # noqa: PLR0124 NaN
        colour = LINES[number % len(LINES)]
        values = [value for _, value in finite]
        axes.plot(_times([at for at, _ in finite]), values, color=colour, linewidth=1.1)
    if not any(points for _, points in drawn_series):
        axes.text(0.5, 0.5, "no data here", ha="center", color="#8a8f98", transform=axes.transAxes)
    return maximum


def _legend(axes: Any, drawn_series: list[tuple[str, Any]]) -> None:
    handles = [
        Line2D([], [], color=LINES[number % len(LINES)], linewidth=2)
        for number in range(min(len(drawn_series), MOST_SERIES))
    ]
    names = [name[:34] for name, _ in drawn_series[:MOST_SERIES]]
    if len(drawn_series) > MOST_SERIES:
        names[-1] = f"… and {len(drawn_series) - MOST_SERIES + 1} more"
    room = axes.get_window_extent().width / 5  # characters, about
    columns = max(1, min(4, int(room / (max(map(len, names), default=0) + 6))))
    axes.legend(
        handles, names, loc="upper left", bbox_to_anchor=(-0.08, -0.13), ncol=columns, fontsize=6.5,
        frameon=False, handlelength=1, columnspacing=1, labelspacing=0.25, borderpad=0,
    )  # fmt: skip


def _times(moments: list[float]) -> list[Any]:
    return [dt.datetime.fromtimestamp(at, dt.UTC) for at in moments]


def _stat(figure: Figure, panel: Json, box: Box, source: Source) -> None:
    left, bottom, width, height = box
    results = [(name, float(sample["value"][1])) for name, sample in _results(panel, source.now)]
    values = results or [("", float("nan"))]
    defaults = panel["fieldConfig"]["defaults"]
    for number, (name, value) in enumerate(values):
        share = width / len(values)
        axes = figure.add_axes((left + number * share, bottom, share * 0.97, height * 0.97))
        axes.set_axis_off()
        steps = defaults["thresholds"]["steps"]
        colour = _coloured(value, steps) if len(steps) > 1 else LINES[0]
        box_of = Rectangle((0, 0), 1, 1, color=colour, transform=axes.transAxes)
        axes.add_patch(box_of)
        size = 17 if len(values) < 4 else 12
        text = _worded(value, defaults)
        axes.text(
            0.5, 0.57, text, ha="center", va="center", size=size, color="white", weight="bold"
        )
        axes.text(0.5, 0.14, name[:24], ha="center", va="center", size=7.5, color="white")


def _bars(figure: Figure, panel: Json, box: Box, source: Source) -> None:
    left, bottom, width, height = box
    axes = figure.add_axes((left + width * 0.3, bottom, width * 0.6, height))
    results = [(name, float(sample["value"][1])) for name, sample in _results(panel, source.now)][
        ::-1
    ]
    axes.barh([name[:30] for name, _ in results], [value for _, value in results], color="#56a64b")
    unit = panel["fieldConfig"]["defaults"]["unit"]
    if not results:
        axes.text(0.5, 0.5, "no data here", ha="center", color="#8a8f98", transform=axes.transAxes)
        axes.set_yticks([])
    for number, (_, value) in enumerate(results):
        axes.text(value, number, "  " + _written(value, unit), va="center", size=8, color=INK)
    axes.tick_params(labelsize=8, length=0, colors=INK)
    axes.set_xticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _table(figure: Figure, panel: Json, box: Box, source: Source) -> None:
    axes = figure.add_axes(box)
    axes.set_axis_off()
    results = [sample["metric"] for _, sample in _results(panel, source.now)]
    columns = sorted({label for labels in results for label in labels})
    for number, row in enumerate([dict(zip(columns, columns, strict=True)), *results][:8]):
        for column, label in enumerate(columns):
            at = (column / max(len(columns), 1), 0.95 - number * 0.12)
            weight = "bold" if number == 0 else "normal"
            axes.text(*at, str(row.get(label, "")), size=8, color=INK, weight=weight, va="top")


def _logs(figure: Figure, _: Json, box: Box, __: Source) -> None:
    axes = figure.add_axes(box)
    axes.set_axis_off()
    axes.text(0.5, 0.5, "log lines from Loki", ha="center", color="#8a8f98")


_KINDS: Final[dict[str, Any]] = {
    "logs": _logs,
    "timeseries": _timeseries,
    "stat": _stat,
    "bargauge": _bars,
    "table": _table,
}


def _coloured(value: float, steps: list[Json]) -> str:
    if value != value:  # noqa: PLR0124 NaN
        return "#9aa0a8"
    reached = [step for step in steps if step["value"] is None or value >= step["value"]]
    return COLOURS[reached[-1]["color"]]


def _worded(value: float, defaults: Json) -> str:
    for mapping in defaults.get("mappings") or []:
        if str(round(value)) in mapping["options"]:
            return str(mapping["options"][str(round(value))]["text"])
    return _written(value, defaults["unit"])


def _written(value: float, unit: str) -> str:
    """Return a number about as Grafana shows it."""
    if value != value:  # noqa: PLR0124 NaN
        return "no data"
    if unit == "s":
        if 0 < abs(value) < 1:
            return f"{value * 1000:.3g} ms"
        return f"{value:.3g} s" if value < 120 else f"{value / 60:.3g} min"
    if unit == "short":
        return f"{value:.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"
    scale, end = {"percentunit": (100, " %"), "bytes": (2**-20, " MiB"), "ops": (1, "/s")}[unit]
    return f"{value * scale:.3g}{end}"


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"), Path(sys.argv[2]), float(sys.argv[3]))
