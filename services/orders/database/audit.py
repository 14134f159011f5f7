"""The audit of commands: who did what, and why; one row for each command."""

import contextlib
import getpass
import os
from collections.abc import Iterator, Sequence

import msgspec

from orders.database.pool import Pool

_IDS = 100  # messages named in a row; all are counted


class AuditedLetters(msgspec.Struct):
    """The actions of a command so far; recorded however it ends."""

    letters: int = 0
    ids: list[str] = []

    def note(self, letter_id: str) -> None:
        """Count a letter, and record the ids of the first ones."""
        self.letters += 1
        if len(self.ids) < _IDS:
            self.ids.append(letter_id)


class Audit:
    """Audit rows of a person's actions. Raises Transient if PostgreSQL is unavailable."""

    def __init__(self, pool: Pool, actor: str, because: str) -> None:
        self._pool, self._actor, self._because = pool, actor, because

    @contextlib.contextmanager
    def recording(self, action: str, subject: str) -> Iterator[AuditedLetters]:
        """Write a row before the block, and its result after the block."""
        row = {"actor": self._actor, "action": action, "subject": subject}
        [(row_id,)] = self._pool.execute("begin_action", {**row, "because": self._because})
        record = AuditedLetters()
        try:
            yield record
        finally:
            detail = msgspec.json.encode(record).decode()
            self._pool.execute("describe_action", {"id": row_id, "detail": detail})

    def settled(self, letters: Sequence[tuple[int | None, str]], *, notify: bool) -> set[int]:
        """Return the positions of letters (order id, type) that need no action any more."""
        numbered = [
            (index, *letter) for index, letter in enumerate(letters) if letter[0] is not None
        ]
        rows = self._pool.execute(
            "settled_letters",
            {
                "numbers": [index for index, _, _ in numbered],
                "orders": [order_id for _, order_id, _ in numbered],
                "types": [kind for _, _, kind in numbered],
                "notify": [notify for _ in numbered],
            },
        )
        return {row.number for row in rows}


def operator(name: str | None = None) -> str:
    """Return the actor of a command: `name`, or the login's name."""
    if name is None:
        try:
            name = getpass.getuser()
        except (OSError, KeyError):  # a pod's user has no entry
            name = f"uid-{os.getuid()}"
    return f"operator:{name}"
