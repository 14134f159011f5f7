"""Time for tests: it only changes when it is set."""


class Clock:
    """A monotonic clock that is moved by hand, in seconds."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s
