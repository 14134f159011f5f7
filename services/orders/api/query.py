"""Ids in paths, and the query of a list."""

import re
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from orders.api.problems import INVALID, Refusal
from orders.domain.order import MAX_ID

DEFAULT_PAGE_SIZE: Final = 20
MAX_PAGE_SIZE: Final = 100
MAX_DEPTH: Final = 10_000  # rows an OFFSET may skip; deeper goes by cursor
_DIGITS: Final = re.compile(r"[1-9][0-9]{0,15}\Z", re.ASCII)
_KNOWN: Final = ("page", "pageSize", "cursor")
_FIELDS_LIMIT: Final = 50


class PageQuery(msgspec.Struct, frozen=True):
    """Which part of a list is asked for: by page, or after a cursor."""

    page: int = 1
    page_size: int = DEFAULT_PAGE_SIZE
    cursor: str | None = None

    @property
    def offset(self) -> int:
        """Rows before the page."""
        return (self.page - 1) * self.page_size


def number(name: str, text: str, most: int = MAX_ID) -> int:
    """Read a decimal integer from 1 to `most`; no sign, no leading zero."""
    if _DIGITS.match(text) and int(text) <= most:
        return int(text)
    raise Refusal(INVALID, f"{name} must be an integer from 1 to {most}.")


def page_query(query: str) -> PageQuery:
    """Read the query of a list; members that are not ours are ignored."""
    members = _once(query) if query else {}
    if "cursor" in members and "page" in members:
        raise Refusal(INVALID, "Give either page or cursor, not both.")
    page = PageQuery(
        page=number("page", members.get("page", "1")),
        page_size=number(
            "pageSize", members.get("pageSize", str(DEFAULT_PAGE_SIZE)), MAX_PAGE_SIZE
        ),
        cursor=members.get("cursor"),
    )
    if page.page * page.page_size > MAX_DEPTH:
        raise Refusal(
            INVALID,
            f"page × pageSize must not exceed {MAX_DEPTH}. "
            'To go deeper, follow the cursor in the Link header (rel="next").',
        )
    return page


def _once(query: str) -> dict[str, str]:
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=_FIELDS_LIMIT)
    except ValueError:
        raise Refusal(INVALID, "The query has too many members.") from None
    members: dict[str, str] = {}
    for name, value in fields:
        if name in members and name in _KNOWN:
            raise Refusal(INVALID, f"{name} is given more than once.")
        members[name] = value
    return members
