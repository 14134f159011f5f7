"""Continuing a watch: a watch that ends is started again, with growing delays after failures."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from orderservice_operator.errors import Gone, OperatorError, Transient

_LONGEST_WAIT_S: Final = 30.0
_PAUSE_S: Final = 0.1  # the only limit on requests if every watch ends immediately
_GOOD_WHILE_S: Final = 2.0  # a watch that worked for this long is started again at once
_log = structlog.get_logger(__name__)


async def follow_for_ever(
    kind: str, follow: Callable[[], Awaitable[None]], begin_anew: Callable[[], None]
) -> None:
    """Follow a kind until cancelled; `begin_anew` has the next time start from a fresh listing."""
    failures = 0
    while True:
        began_at = time.monotonic()
        try:
            await follow()
            failures = 0
            await asyncio.sleep(_PAUSE_S)
        except Gone:
            begin_anew()
        except OperatorError as error:
            # Only a listing is known to be fresh: the watch may have missed events for long.
            begin_anew()
            failures = 1 if time.monotonic() - began_at > _GOOD_WHILE_S else failures + 1
            retry_after_s = error.after_s if isinstance(error, Transient) else 0.0
            wait_s = max(retry_after_s, min(_LONGEST_WAIT_S, 0.25 * float(2 ** min(failures, 10))))
            _log.warning("watch.failed", kind=kind, error=str(error), wait_s=wait_s)
            await asyncio.sleep(wait_s)
