"""The exceptions: the class says what the caller must do.

Adapters translate the errors of libraries into these and chain the cause; each edge (HTTP,
messages, command line) has one table that maps them to an answer.
"""


class OrdersError(Exception):
    """Stop. The message says what happened and is safe to show to an operator."""


class Transient(OrdersError):
    """Try again later: the same call may succeed."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(Transient):
    """Wait for a dependency: the work is not at fault, so waiting does not use up its tries.

    `dependency` is its name for messages. With `pause`, other work that needs it would fail too.
    """

    def __init__(
        self, message: str, *, dependency: str, pause: bool, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.dependency, self.pause = dependency, pause


class Permanent(OrdersError):
    """Do not try again: the same call always fails. `reason` is a short word for programs."""

    def __init__(self, message: str, *, reason: str = "permanent") -> None:
        super().__init__(message)
        self.reason = reason


class SettingError(OrdersError):
    """Correct the environment variable that the message names, then start again."""
