"""The error codes that count as answers are those that the stand-ins of the contract give."""

import re
from pathlib import Path

import upstreams
from orders.upstream.http import CODES

SIMULATORS = Path(upstreams.__file__).parent
CODE = re.compile(r'Refusal\(4\d\d, f?"([a-z_]+)[{"]')
STATES = ("committed", "released", "returned")


def test_every_code_of_inventory_and_payment_is_known() -> None:
    texts = [
        (SIMULATORS / name).read_text()
        for name in ("inventory.py", "payment.py", "journal.py", "web.py")
    ]
    prefixes = {code for text in texts for code in CODE.findall(text)}
    expected = {
        code for each in prefixes
        for code in ([f"{each}{state}" for state in STATES] if each.endswith("_") else [each])
    }  # fmt: skip
    assert expected
    assert expected <= CODES
