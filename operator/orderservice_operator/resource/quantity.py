"""Amounts of CPU and memory as Kubernetes writes them."""

import re
from decimal import Decimal
from typing import Final

_QUANTITY: Final = re.compile(r"^(\d+(?:\.\d+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")
_SCALE: Final = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "Ki": Decimal(2**10),
    "M": Decimal(10**6),
    "Mi": Decimal(2**20),
    "G": Decimal(10**9),
    "Gi": Decimal(2**30),
    "T": Decimal(10**12),
    "Ti": Decimal(2**40),
}


def amount(text: str) -> Decimal | None:
    """Read an amount; None if it is invalid. The server writes 1000m as 1, and 1024Mi as 1Gi."""
    match = _QUANTITY.match(text)
    return Decimal(match[1]) * _SCALE[match[2] or ""] if match else None
