"""A forecast as text: a coloured diff, a list, or JSON. Pure."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from orderservice_operator.orderctl.difference import coloured
from orderservice_operator.orderctl.plan import Forecast
from orderservice_operator.orderctl.style import Style

_SIGNS: Final = {"create": ("+", "green"), "change": ("~", "yellow"), "delete": ("-", "red")}

Forecasts = Sequence[Forecast]


def diff(forecasts: Forecasts, style: Style) -> str:
    """Return every change with its diff."""
    return _text(forecasts, style, with_diff=True)


def summary(forecasts: Forecasts, style: Style) -> str:
    """Return a line for every change."""
    return _text(forecasts, style, with_diff=False)


def as_json(forecasts: Forecasts, _style: Style) -> str:
    """Return the forecasts as JSON."""
    return msgspec.json.format(msgspec.json.encode(forecasts), indent=2).decode() + "\n"


FORMS: Final[Mapping[str, Callable[[Forecasts, Style], str]]] = {
    "diff": diff,
    "summary": summary,
    "json": as_json,
}


def _text(forecasts: Forecasts, style: Style, *, with_diff: bool) -> str:
    lines = [
        line for forecast in forecasts for line in _lines(forecast, style, with_diff=with_diff)
    ]
    return "\n".join(lines) + "\n"


def _lines(forecast: Forecast, style: Style, *, with_diff: bool) -> Iterator[str]:
    yield style(f"OrderService {forecast.resource}", "bold")
    for change in forecast.changes:
        sign, colour = _SIGNS[change.action]
        yield style(f"{sign} {change.action} {change.kind} {change.name}", colour)
        if change.refused:
            yield style(f"    the API server refuses it: {change.refused}", "red")
        if with_diff and change.diff:
            yield coloured([f"    {line}" for line in change.diff], style)
    for note in forecast.notes:
        yield style(f"note: {note}", "yellow")
    yield _total(forecast)


def _total(forecast: Forecast) -> str:
    if not forecast.changes:
        return f"nothing would change ({forecast.unchanged} objects are up to date)"
    count = Counter[str](change.action for change in forecast.changes)
    totals = ", ".join(f"{count[action]} to {action}" for action in _SIGNS if count[action])
    return f"{totals}; {forecast.unchanged} unchanged"
