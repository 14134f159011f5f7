"""Types of orders: the request, the row and the answer."""

import base64
import datetime as dt
import hashlib
import struct
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

MAX_ID: Final = 2**53 - 1
Id = Annotated[int, Field(ge=1, le=MAX_ID)]
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_encoder: Final = msgspec.json.Encoder(decimal_format="number")


def _amount(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("expected a number")  # noqa: TRY004 what pydantic takes for a refusal
    return Decimal(repr(value))


class NewOrder(BaseModel):
    """The body of POST /api/orders."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)

    user_id: Id
    product_id: Id
    quantity: Annotated[int, Field(ge=1, le=1000)]
    total: Annotated[
        Decimal, BeforeValidator(_amount), Field(gt=0, le=Decimal("99999999.99"), decimal_places=2)
    ]
    payment_method: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}\z")]


class OrderView(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """An order in an answer; its members have the order of the columns."""

    id: int
    user_id: int
    product_id: int
    quantity: int
    total: Decimal
    status: str
    created_at: dt.datetime
    updated_at: dt.datetime
    status_reason: str | None = None
    cancel_requested: bool = False
    refunded: Decimal | None = None


def accepted(order_id: int) -> bytes:
    """Return the answer to an accepted order."""
    return b'{"orderId":%d,"status":"Pending","message":"Order is being processed"}' % order_id


def view(row: Any) -> OrderView:
    """Return the members of a row that the answer shows; it omits `version`."""
    return OrderView(
        row["id"],
        row["user_id"],
        row["product_id"],
        row["quantity"],
        row["total"],
        row["status"],
        row["created_at"],
        row["updated_at"],
        row["status_reason"],
        row["cancel_requested"] and row["status"] == "Charging",
        row["refunded"],
    )


def encoded(view: OrderView | list[OrderView]) -> bytes:
    """Return JSON with exact decimals."""
    return _encoder.encode(view)


def cursor(created_at: dt.datetime, order_id: int, user_id: int, key: bytes) -> str:
    """Return the sealed position of a row in a user's list."""
    micros = (created_at - _EPOCH) // dt.timedelta(microseconds=1)
    payload = struct.pack(">Bqq", 1, micros, order_id)
    text = b"orders.cursor\0%d\0" % user_id + payload
    seal = hashlib.blake2b(text, key=key, digest_size=16).digest()
    return base64.urlsafe_b64encode(payload + seal).decode()
