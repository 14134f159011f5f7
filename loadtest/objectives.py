"""Thresholds that several scenarios share."""

from typing import Final

from loadtest.scenario import Threshold, at_most

# With any fault: no purchase is refused while there is stock, and no answer is wrong. The driver
# itself must stay small, or it would measure itself.
ALWAYS: Final = (
    at_most("orders.refused", 0),
    at_most("client.wrong", 0),
    at_most("memory.locust.max_mib", 250),
)

# Payment works: only payments that it was told to decline may fail.
PAID: Final = (at_most("orders.undeclined_failed", 0),)

# Clients notice no fault: every request gets its normal answer, and no message is dead-lettered.
UNHARMED: Final[tuple[Threshold, ...]] = (
    at_most("all.error_ratio", 0),
    at_most("orders.unanswered", 0),
    at_most("dead_letters", 0, local=True),
    *ALWAYS,
)

# The service's objectives for 99 %: a POST within 300 ms, a GET within 100 ms, an order's end
# within 60 s of its 202.
OBJECTIVES: Final = (
    at_most("create.p99_ms", 300),
    at_most("read.p99_ms", 100),
    at_most("poll.p99_ms", 100),
    at_most("list.p99_ms", 100),
    at_most("completion.p99_s", 60),
)
