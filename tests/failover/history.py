"""The history of a run in files: the answers that clients got, and the faults of servers."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

NO_ANSWER: Final = 0


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One request of one client and its answer. Times are unix seconds.

    `status` is 0 where no answer came, and `error` says why. `mark` names the order that was placed
    or asked for; it is unique in a run. `link` is the target of a Link header.
    """

    client: int
    number: int
    action: str
    sent_s: float
    answered_s: float
    status: int = NO_ANSWER
    mark: int | None = None
    key: str | None = None
    order_id: int | None = None
    version: int | None = None
    retry_after: str | None = None
    replayed: bool = False
    amount: int | None = None  # cents: what a refund asked for
    walk: int | None = None  # the pages of one walk through a list share a number
    link: str | None = None  # where the next page is
    error: str = ""
    body: Any = None


class Fault(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Something that was done to the servers, and when. Times are unix seconds."""

    kind: str
    subject: str
    began_s: float
    ended_s: float = 0.0
    promoted_s: float = 0.0  # a promotion: when the new primary took writes
    moved_s: float = 0.0  # a promotion: when the address led to it
    acted_s: float = 0.0  # a failpoint: when a process ended at it
    note: str = ""


class History:
    """The histories of all clients of a run, and its journal of faults."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self.entries: list[Entry] = []
        self.faults: list[Fault] = []

    def add(self, entry: Entry) -> None:
        """Keep an entry, also in its client's file."""
        line = msgspec.json.encode(entry) + b"\n"
        with self._lock:
            self.entries.append(entry)
            with (self.folder / f"client-{entry.client}.jsonl").open("ab") as file:
                file.write(line)

    def fault(self, kind: str, subject: str) -> Fault:
        """Note that a fault begins; the caller completes the record."""
        fault = Fault(kind=kind, subject=subject, began_s=time.time())
        with self._lock:
            self.faults.append(fault)
        return fault

    def snapshot(self) -> list[Entry]:
        """Return what has been kept so far."""
        with self._lock:
            return list(self.entries)

    def save_journal(self) -> None:
        """Write the journal of faults beside the histories."""
        lines = msgspec.json.Encoder().encode_lines(self.faults)
        (self.folder / "faults.jsonl").write_bytes(lines)


def load(folder: Path) -> History:
    """Read a history that was kept, to check it again."""
    history = History(folder)
    for file in sorted(folder.glob("client-*.jsonl")):
        history.entries += msgspec.json.Decoder(Entry).decode_lines(file.read_bytes())
    history.entries.sort(key=lambda entry: entry.sent_s)
    journal = folder / "faults.jsonl"
    if journal.exists():
        history.faults = msgspec.json.Decoder(Fault).decode_lines(journal.read_bytes())
    return history


def around(entries: Sequence[Entry], client: int, number: int, span: int = 3) -> Iterator[Entry]:
    """Yield a client's requests around one of them, in order."""
    entries_of_mark = sorted(
        (entry for entry in entries if entry.client == client), key=lambda entry: entry.number
    )
    return (entry for entry in entries_of_mark if abs(entry.number - number) <= span)


def about(entries: Sequence[Entry], mark: int, maximum: int = 20) -> list[Entry]:
    """Return the requests of all clients about one order, in order; the last `most` of them."""
    entries_of_mark = [entry for entry in entries if entry.mark == mark]
    return sorted(entries_of_mark, key=lambda entry: entry.sent_s)[-maximum:]
