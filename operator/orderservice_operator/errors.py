"""What can go wrong; an exception's class says what the caller has to do."""


class OperatorError(Exception):
    """Begin of the operator's own errors."""


class Transient(OperatorError):
    """Try again later: `after_s` is the least wait the other side asked for."""

    def __init__(self, message: str, after_s: float = 0) -> None:
        super().__init__(message)
        self.after_s = after_s


class Forbidden(Transient):
    """Go on without it if that can be: people mend a role, and then it works."""


class Busy(Transient):
    """Send the same again after that wait: it was not looked at."""


class Unknown(Transient):
    """Ask again later: the other side answers, but does not know."""


class Conflict(Transient):
    """Look again, then decide anew: the object changed, or somebody else owns a field of it."""


class Gone(Transient):
    """List again: the watch's place in history is no longer known."""


class NotFound(OperatorError):
    """Take it as absent."""


class Vanished(OperatorError):
    """Forget the resource: it is gone, though no event has said so."""


class Permanent(OperatorError):
    """Report it and wait for a change: trying again gives the same answer."""
