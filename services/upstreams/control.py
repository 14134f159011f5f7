"""The part of the control API that every simulator has."""

from collections.abc import Callable
from typing import Any

import falcon

from upstreams.access import Access, TokensResource
from upstreams.faults import FaultsResource, Script
from upstreams.web import answer


class RowsResource:
    """`GET`: the simulator's ledger, as a bare array."""

    def __init__(self, rows: Callable[[], list[Any]]) -> None:
        self._rows = rows

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer every row, oldest first."""
        answer(resp, self._rows())


class ResetResource:
    """`POST /control/reset`: forget everything, faults included."""

    def __init__(self, *resets: Callable[[], None]) -> None:
        self._resets = resets

    def on_post(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Delete the ledger and the scripted faults."""
        for reset in self._resets:
            reset()
        resp.status = 204


def add(
    app: falcon.App[falcon.Request, falcon.Response],
    script: Script,
    reset: Callable[[], None],
    access: Access | None = None,
) -> None:
    """Add the routes of faults and reset, and of accepted tokens where there are any."""
    if access is not None:
        app.add_route("/control/tokens", TokensResource(access))
    app.add_route("/control/faults", FaultsResource(script))
    app.add_route("/control/reset", ResetResource(script.reset, reset))
