"""The cases for TLC: bounds, properties, and which of them has to fail."""

import re
from typing import Final

import msgspec


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `constants` replaces values of Order.cfg; `fails` names what has to be violated.

    Symmetry of the workers is used only without temporal properties, which it would hide.
    """

    name: str
    why: str
    constants: dict[str, str] = {}
    invariants: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    fails: str | None = None

    def configuration(self, base: str) -> str:
        """Return the text of this case's .cfg file. Raises KeyError for an unknown constant."""
        head = base[: base.index("INVARIANTS")]
        for name, value in self.constants.items():
            head, replaced = re.subn(rf"(?m)^  {name} = .*$", f"  {name} = {value}", head)
            if not replaced:
                raise KeyError(name)
        lines = [f"INVARIANT {name}" for name in self.invariants]
        lines += [f"PROPERTY {name}" for name in self.properties]
        if not self.properties and "Workers" not in self.constants:
            lines.append("SYMMETRY Symmetric")
        return head + "\n".join(lines) + "\n"


_SAFE: Final = (
    "TypeOK",
    "OneCapture",
    "RefundsWithinCapture",
    "UnpaidEndKeepsNoMoney",
    "CompletedIsPaid",
    "CancellationIsKept",
)
# Small bounds: one worker, and for lost commits no other fault.
_ALONE: Final = {"Workers": "{w1}", "SupportRefunds": "0"}
_LOSSY: Final = _ALONE | {"Promotions": "1", "Sweeper": "TRUE", "Faults": "0"}

HOLD: Final = (
    Case(
        name="two workers",
        why="crashes, lost connections, calls that arrive late, a cancellation, a partial refund",
        invariants=_SAFE,
    ),
    Case(
        name="every order ends",
        why="the same with one worker; nobody emits the order again",
        constants={"Workers": "{w1}"},
        invariants=_SAFE,
        properties=("EveryOrderEnds", "UnpaidEndHoldsNoStock", "PaidEndHasItsStock"),
    ),
    Case(
        name="lost commits",
        why="a standby without the last commits is promoted",
        constants=_LOSSY,
        invariants=("TypeOK", "OneCapture", "RefundsWithinCapture", "SettledEndKeepsNoMoney"),
        properties=("EveryOrderEnds", "UnpaidEndHoldsNoStock"),
    ),
)

FAIL: Final = (
    Case(
        name="a new attempt id on retry",
        why="Payment is asked again under another key",
        constants={"AttemptId": '"call"'},
        invariants=("OneCapture",),
        fails="OneCapture",
    ),
    Case(
        name="a random attempt id",
        why="committed before the call, but lost with its commit by a promotion",
        constants=_LOSSY | {"AttemptId": '"row"'},
        invariants=("OneCapture",),
        fails="OneCapture",
    ),
    Case(
        name="acknowledged before the commit",
        why="a crash loses the message",
        constants=_ALONE | {"AckFirst": "TRUE"},
        properties=("EveryOrderEnds",),
        fails="EveryOrderEnds",
    ),
    Case(
        name="a cancellation without a new version",
        why="a worker that read the order before completes it",
        constants={"CancelIsSeen": "FALSE"},
        invariants=("CancellationIsKept",),
        fails="CancellationIsKept",
    ),
    Case(
        name="lost commits, no sweeper",
        why="the message was acknowledged for work that is lost",
        constants=_LOSSY | {"Sweeper": "FALSE", "Cancellations": "0"},
        properties=("EveryOrderEnds",),
        fails="EveryOrderEnds",
    ),
    Case(
        name="lost commits, a late capture",
        why="not promised: the capture arrives after the cancelled order was settled",
        constants=_LOSSY | {"Faults": "1"},
        invariants=("SettledEndKeepsNoMoney",),
        fails="SettledEndKeepsNoMoney",
    ),
)
