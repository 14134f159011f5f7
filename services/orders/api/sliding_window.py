"""The arithmetic of the rate limit: two windows, the former weighted by what of it still counts.

Pure; the counting itself happens in Redis, by `sliding_window.lua`.
"""

from importlib import resources
from typing import NamedTuple


class Window(NamedTuple):
    """What counts for a principal: `left_ms` until the current window becomes the previous one."""

    previous: int
    current: int
    left_ms: int


def script() -> bytes:
    """Return the Lua script that counts.

    KEYS: a principal's, ARGV: limit, window in ms, amount, and what was admitted before (or none).
    """
    return resources.files(__package__).joinpath("sliding_window.lua").read_bytes()


def passed(window: Window, ms: int, window_ms: int) -> Window:
    """Return the window as it is `ms` later if nobody asks in between."""
    left_ms = window.left_ms - ms
    if left_ms > 0:
        return window._replace(left_ms=left_ms)
    left_ms += window_ms
    return Window(window.current, 0, left_ms) if left_ms > 0 else Window(0, 0, window_ms)


def weighted(window: Window, window_ms: int) -> int:
    """Return the requests that count now: the current ones and a share of the previous."""
    return window.previous * window.left_ms // window_ms + window.current


def wait_ms(window: Window, limit: int, window_ms: int) -> int:
    """Return the milliseconds until one more request passes, if nobody passes in between."""
    room = limit - 1 - window.current
    if room >= 0:
        return max(0, window.left_ms - _left_with_room(window.previous, room, window_ms))
    # Not before the next window, in which the current count is the previous one.
    later = window_ms - _left_with_room(window.current, limit - 1, window_ms)
    return window.left_ms + max(0, later)


def _left_with_room(previous: int, room: int, window_ms: int) -> int:
    """Return the largest `left_ms` at which the previous window's share is at most `room`."""
    if not previous:
        return window_ms
    return -(-(room + 1) * window_ms // previous) - 1
