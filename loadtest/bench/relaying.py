"""The relay, compared with the confirms of the broker and the inserts of the database."""

import time
from functools import partial
from typing import Final

from loadtest.bench import queues, statements
from loadtest.bench.bed import Bed, Contestant, Work
from loadtest.bench.data import USERS
from loadtest.bench.generators import Throughput
from loadtest.bench.stand import until

# Slices of about the wanted length on two cores: the rates are found, the count is not.
_PER_S: Final = 4_000
_WARM: Final = 50
_WITHIN_S: Final = 120.0


def work(bed: Bed) -> Work:
    """Return the relay as a subject."""
    count = _PER_S * bed.plan.seconds
    contestants = {
        who: Contestant(
            partial(_relayed, bed, count), partial(_start, bed, who), partial(_end, bed, who)
        )
        for who in bed.ours("relay")
    }
    posts = partial(bed.stated, statements.accept_order(), USERS)
    contestants["pgbench POST"] = Contestant(posts, after=bed.database.empty_outbox)
    contestants["broker"] = Contestant(
        partial(queues.announce, bed.stand.amqp_url, [1] * count),
        after=partial(queues.purge, bed.stand.amqp_url),
    )
    compared = [(who, "broker") for who in bed.ours("relay")] + [("relay", "pgbench POST")]
    return Work("relay", "message", contestants, [*compared, *bed.pairs("relay")])


def _start(bed: Bed, who: str) -> None:
    bed.database.empty_outbox()
    bed.stand.start(who)
    _relayed(bed, _WARM)


def _end(bed: Bed, who: str) -> None:
    bed.stand.stop(who)
    queues.purge(bed.stand.amqp_url)


def _relayed(bed: Bed, count: int) -> Throughput:
    bed.database.fill_outbox(count)
    began_s = time.perf_counter()
    until(bed.database.outbox_is_empty, _WITHIN_S)
    return Throughput(count, count / (time.perf_counter() - began_s))
