"""A small run as histories and evidence that are made up, for the tests of checkers."""

import msgspec

from failover.clients import FIRST_MARK, order_of
from failover.evidence import Capture, Evidence, Held, Notified, OrderRow
from failover.history import Entry

ALICE, BOB = 50_001, 50_002
A, B = FIRST_MARK + 1, FIRST_MARK + 2
IDS = {A: 11, B: 12}
OWNER = {A: ALICE, B: BOB}


def entry(client: int, number: int, action: str, at_s: float, **facts: object) -> Entry:
    return msgspec.convert(
        {
            "client": client, "number": number, "action": action, "sent_s": at_s,
            "answered_s": at_s + 0.01, **facts,
        },
        Entry,
    )  # fmt: skip


def body_of(mark: int, **other: object) -> dict[str, object]:
    return {"id": IDS[mark], **order_of(mark, OWNER[mark]), "status": "Completed", **other}


def placed(mark: int, at_s: float) -> Entry:
    return entry(
        OWNER[mark], 0, "place", at_s, status=202, mark=mark, order_id=IDS[mark], key=f"k{mark}"
    )


def was_read(mark: int, at_s: float, number: int = 1, version: int = 4) -> Entry:
    return entry(
        OWNER[mark], number, "read", at_s, status=200, mark=mark, order_id=IDS[mark],
        version=version, body=body_of(mark),
    )  # fmt: skip


def listed(mark: int, at_s: float, *marks: int) -> Entry:
    return entry(OWNER[mark], 2, "list", at_s, status=200, body=list(map(body_of, marks)))


HISTORY = [
    placed(A, 100), placed(B, 100.5), was_read(A, 101), was_read(B, 101), listed(A, 102, A),
]  # fmt: skip


def row(mark: int, **other: object) -> OrderRow:
    defaults = {
        "id": IDS[mark], "user_id": OWNER[mark], "mark": mark, "product_mark": mark,
        "quantity": 1 + mark % 3, "total_mark": mark, "status": "Completed", "version": 4,
    }  # fmt: skip
    return msgspec.convert(defaults | other, OrderRow)


DONE = Evidence(
    orders=[row(A), row(B)],
    captures=[Capture("a", IDS[A], A), Capture("b", IDS[B], B)],
    stock=[Held(IDS[mark], mark, 1, "committed") for mark in (A, B)],
    notified=[Notified(f"w{mark}", "order.completed", IDS[mark], 4, 103) for mark in (A, B)],
    dead={"order-processing.dead": 0},
    outbox=0,
)


def but(**changes: object) -> Evidence:
    return msgspec.structs.replace(DONE, **changes)
