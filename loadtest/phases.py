"""Names of the phases that figures refer to."""

from collections.abc import Mapping
from typing import Final

KNEE: Final = "knee"
OVERLOAD: Final = "overload"


def overload(figures: Mapping[str, float]) -> dict[str, float]:
    """Return goodput and arrivals under overload as multiples of the rate at the knee."""
    knee = figures.get(f"create.rate@{KNEE}", 0.0)
    if not knee:
        return {}
    goodput = figures.get(f"create.rate@{OVERLOAD}", 0.0)
    arrivals = goodput + figures.get(f"shed.rate@{OVERLOAD}", 0.0)
    return {
        "overload.goodput_of_knee": round(goodput / knee, 3),
        "overload.arrivals_of_knee": round(arrivals / knee, 3),
    }
