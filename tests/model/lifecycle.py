"""`python -m model.lifecycle`: write the model's life cycle from the code's own table."""

from collections.abc import Iterable, Iterator
from typing import Final

from devstack.settings import REPOSITORY
from orders.domain.lifecycle import TERMINAL, Event, Status, transition
from orderservice_topology import topology

FOLDER: Final = REPOSITORY / "docs" / "model"
PATH: Final = FOLDER / "Lifecycle.tla"
_HEAD: Final = """\
------------------------------ MODULE Lifecycle ------------------------------
(* Written by `PYTHONPATH=services:tests python -m model.lifecycle` from      *)
(* services/orders/domain/lifecycle.py and the topology. Do not edit.         *)
"""


def written() -> str:
    """Return the text of Lifecycle.tla, as it has to be."""
    rows = ",\n".join(f"  {row}" for row in _transitions())
    return (
        f"{_HEAD}"
        f"Statuses == {_set(Status)}\n"
        f"Terminal == {_set(TERMINAL)}\n"
        f"ForWorker == {_set(topology.ACCEPTS[topology.PROCESSING])}\n"
        f"Transitions == {{\n{rows}\n}}\n"
        f"{'=' * 78}\n"
    )


def _transitions() -> Iterator[str]:
    for status in Status:
        for event in Event:
            for cancelled in (False, True):
                change = transition(status, event, cancel_requested=cancelled)
                if change is not None:
                    yield (
                        f'[from |-> "{status}", event |-> "{event}", '
                        f"cancelled |-> {str(cancelled).upper()}, "
                        f'to |-> "{change.to}", announces |-> "{change.announces or "none"}"]'
                    )


def _set(names: Iterable[str]) -> str:
    quoted = ", ".join(f'"{name}"' for name in sorted(names))
    return f"{{{quoted}}}"


if __name__ == "__main__":
    PATH.write_text(written())
