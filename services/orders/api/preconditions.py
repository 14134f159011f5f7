"""Conditional requests: whether the caller has this version already (RFC 9110, 13.1.2)."""

import re
from typing import Final

_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def is_known(etag: str, if_none_match: str | None) -> bool:
    """Compare weakly with every tag of If-None-Match; `*` matches whatever exists."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in _TAG.findall(if_none_match)
