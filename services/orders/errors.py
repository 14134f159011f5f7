"""What can go wrong, by what the caller must do about it.

Adapters translate the errors of libraries into these and chain the cause; each edge (HTTP,
messages, command line) has one table that maps them to an answer.
"""


class OrdersError(Exception):
    """Stop; the message says what happened in words safe to show to an operator."""


class Transient(OrdersError):
    """Try again later: the same call may succeed, and nothing is known to be wrong with it."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(Transient):
    """Wait for a dependency: nothing is wrong with the work, so waiting uses up none of its tries.

    `dependency` names it for people. With `pause`, other work that needs it would fail alike.
    """

    def __init__(
        self, message: str, *, dependency: str, pause: bool, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.dependency, self.pause = dependency, pause


class Permanent(OrdersError):
    """Do not try again: the same call fails for ever. `reason` is a short machine-readable word."""

    def __init__(self, message: str, *, reason: str = "permanent") -> None:
        super().__init__(message)
        self.reason = reason


class SettingError(OrdersError):
    """Correct the environment variable that the message names, then start again."""
