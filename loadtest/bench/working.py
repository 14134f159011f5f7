"""The worker, beside pgbench running its statements: what is left is calls, messages and Python."""

import time
from typing import Final

from loadtest.bench import queues, statements
from loadtest.bench.bed import Bed, Contestant, Work
from loadtest.bench.generators import Reading
from loadtest.bench.stand import until

# Slices of about the wanted length on two cores: the rates are found, the counts are not.
_PER_S: Final = 150
_STATED_PER_S: Final = 400
_WARM: Final = 50
_WITHIN_S: Final = 120.0
_CONNECTIONS: Final = 10  # the worker's prefetch: its threads, each with a connection


def work(bed: Bed) -> Work:
    """Return the worker as a subject."""
    made = {who: _worked(bed, who) for who in bed.ours("worker")}
    made["pgbench"] = _stated(bed)
    compared = [(who, "pgbench") for who in bed.ours("worker")]
    return Work("worker", "order", made, [*compared, *bed.pairs("worker")])


def _worked(bed: Bed, who: str) -> Contestant:
    """Make orders, announce them, and wait until the worker has brought all to their very end."""
    waiting: list[range] = []

    def before() -> None:
        bed.stand.start(who)
        waiting.append(bed.database.add_pending(_WARM))
        run()
        waiting.append(bed.database.add_pending(_PER_S * bed.plan.seconds))

    def run() -> Reading:
        orders = waiting.pop()
        began_s = time.perf_counter()
        queues.announce(bed.stand.amqp_url, orders)
        until(lambda: bed.database.settled(orders) == len(orders), _WITHIN_S)
        return Reading(len(orders), len(orders) / (time.perf_counter() - began_s))

    def after() -> None:
        bed.stand.stop(who)
        queues.purge(bed.stand.amqp_url)

    return Contestant(run, before, after)


def _stated(bed: Bed) -> Contestant:
    """Do the same to the orders with statements alone."""
    waiting: list[range] = []

    def before() -> None:
        waiting.append(bed.database.add_pending(_STATED_PER_S * bed.plan.seconds))

    def run() -> Reading:
        orders = waiting.pop()
        turns = {"first": orders[0], "taken": 0, "clients": _CONNECTIONS}
        how = ("-c", str(_CONNECTIONS), "-j", "2", "-t", str(len(orders) // _CONNECTIONS))
        variables = statements.CONSTANTS | turns
        return bed.pgbench.run(statements.bring_to_end(), variables, *how)

    return Contestant(run, before)
