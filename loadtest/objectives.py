"""Thresholds that several scenarios share."""

from typing import Final

from loadtest.scenario import Threshold, at_most

# Whatever is broken meanwhile: nobody is refused what there is enough of, or answered with
# nonsense. And of the driver itself: a load test that eats the machine measures nothing.
ALWAYS: Final = (
    at_most("orders.refused", 0),
    at_most("client.wrong", 0),
    at_most("memory.locust.max_mib", 250),
)

# Payment is well: only what it was asked to decline may fail.
PAID: Final = (at_most("orders.undeclined_failed", 0),)

# Nobody is told of a fault: every request is answered as it should be, no message is put aside.
UNHARMED: Final[tuple[Threshold, ...]] = (
    at_most("all.error_ratio", 0),
    at_most("orders.unanswered", 0),
    at_most("dead_letters", 0, local=True),
    *ALWAYS,
)

# The service's objectives: a POST within 300 ms, a GET within 100 ms, for 99 of 100; an order's end
# within 60 s of its 202.
OBJECTIVES: Final = (
    at_most("create.p99_ms", 300),
    at_most("read.p99_ms", 100),
    at_most("poll.p99_ms", 100),
    at_most("list.p99_ms", 100),
    at_most("completion.p99_s", 60),
)
