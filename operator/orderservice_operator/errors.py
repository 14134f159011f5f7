"""The operator's exceptions: the class says what the caller must do."""


class OperatorError(Exception):
    """The base of the operator's own errors."""


class Transient(OperatorError):
    """Try again later: `after_s` is the least wait the other side asked for."""

    def __init__(self, message: str, after_s: float = 0) -> None:
        super().__init__(message)
        self.after_s = after_s


class Forbidden(Transient):
    """Continue without it if possible: it works once a person corrects the role."""


class Busy(Transient):
    """Send the same request again after that wait: the server did not process it."""


class Unknown(Transient):
    """Ask again later: the other side answers, but does not know."""


class Conflict(Transient):
    """Read again, then decide again: the object changed, or another manager owns a field of it."""


class Gone(Transient):
    """List again: the watch's place in history is no longer known."""


class NotFound(OperatorError):
    """Treat it as absent."""


class Vanished(OperatorError):
    """Forget the resource: it is gone, although no event has reported it."""


class Permanent(OperatorError):
    """Report it and wait for a change: trying again gives the same answer."""
