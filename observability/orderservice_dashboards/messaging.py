"""Messaging: outbox, queues, retries, dead letters."""

from typing import Final

from orderservice_dashboards.panels import (
    CHOICES,
    GREEN,
    NUMBER,
    ORANGE,
    PER_SECOND,
    RED,
    SECONDS,
    Dashboard,
    Panel,
    Query,
    Row,
    of,
    quantile,
    rate,
)

HANDLED: Final = "messaging_process_duration_seconds"


def _depth(pattern: str) -> Query:
    depth = of("messaging_queue_messages", f'queue=~"{pattern}"')
    return Query(f"max by (queue) ({depth})", "{{queue}}")


_OUTBOX: Final = (
    Panel(
        "Rows waiting",
        "Outbox rows that are not published yet.",
        (Query(f"max({of('outbox_pending')})", "rows"),),
        NUMBER,
        steps=((1000, ORANGE), (10_000, RED)),
        width=6,
    ),
    Panel(
        "Age of the oldest row",
        "How long the oldest row has waited. If this approaches the objective, orders cannot end "
        "in time.",
        (Query(f"max({of('outbox_oldest_age_seconds')})", "oldest"),),
        SECONDS,
        steps=((10, ORANGE), (60, RED)),
        width=6,
    ),
    Panel(
        "Published",
        "Rows published per second, by outcome. All but `confirmed` are tried again.",
        (Query(rate("outbox_published_total", "outcome"), "{{outcome}}", exemplars=True),),
        PER_SECOND,
        width=8,
    ),
    Panel(
        "Leading relays",
        "One relay publishes; the others stand by.",
        (Query(f"sum({of('relay_leading')})", "leading"),),
        NUMBER,
        kind="stat",
        steps=((1, GREEN), (2, RED)),
        below=RED,
        width=4,
    ),
)

_QUEUES: Final = (
    Panel(
        "Work queues",
        "Messages that wait for a consumer.",
        (_depth("order-processing|order-notifications"),),
        NUMBER,
        steps=((100, ORANGE), (10_000, RED)),
    ),
    Panel(
        "Time to empty a queue",
        "Waiting messages divided by the rate at which messages are handled.",
        (
            Query(
                "max by (queue) ("
                + of("messaging_queue_messages", 'queue=~"order-processing|order-notifications"')
                + f") / sum by (queue) (rate({of(f'{HANDLED}_count')}[5m]))",
                "{{queue}}",
            ),
        ),
        SECONDS,
        steps=((10, ORANGE), (60, RED)),
    ),
    Panel(
        "Consumers",
        "Consumers that RabbitMQ reports, by work queue.",
        (
            Query(
                "max by (queue) ("
                + of("messaging_queue_consumers", 'queue=~"order-processing|order-notifications"')
                + ")",
                "{{queue}}",
            ),
        ),
        NUMBER,
        kind="stat",
        steps=((1, GREEN),),
        below=RED,
    ),
    Panel(
        "Handled",
        "Messages handled per second, by queue and outcome.",
        (Query(rate(f"{HANDLED}_count", "queue, outcome"), "{{queue}} {{outcome}}"),),
        PER_SECOND,
        width=12,
    ),
    Panel(
        "Time to handle, p99",
        "99 % of messages are handled faster.",
        (Query(quantile(0.99, HANDLED, "queue"), "{{queue}}", exemplars=True),),
        SECONDS,
        width=12,
    ),
)

_TROUBLE: Final = (
    Panel(
        "Retries",
        "Messages per second sent to a retry tier because something they need is failing.",
        (Query(rate("messaging_retries_total", "queue, tier"), "{{queue}} {{tier}}"),),
        PER_SECOND,
        steps=((0.1, ORANGE), (1, RED)),
    ),
    Panel(
        "Waiting for a retry",
        "Messages in the retry tiers.",
        (_depth(".+[.]retry[.].+"),),
        NUMBER,
        steps=((1, ORANGE), (1000, RED)),
    ),
    Panel(
        "Dead letters",
        "Dead letters that wait for a person: `orders dead-letters list`.",
        (_depth(".+[.]dead"),),
        NUMBER,
        steps=((1, RED),),
    ),
    Panel(
        "Dead letters, by reason",
        "Messages dead-lettered since the processes started, by queue and reason.",
        (
            Query(
                f"sum by (queue, reason) ({of('messaging_dead_letter_total')})",
                "{{queue}} {{reason}}",
            ),
        ),
        NUMBER,
        kind="bargauge",
        width=12,
    ),
    Panel(
        "Unrouted",
        "Messages that match no binding.",
        (_depth("orders[.]unrouted"),),
        NUMBER,
        kind="stat",
        steps=((1, RED),),
        width=12,
    ),
)

MESSAGING: Final = Dashboard(
    "messaging",
    "Orders / Messaging",
    "The path of a message: outbox, queues, retries, dead letters.",
    (Row("Outbox", _OUTBOX), Row("Queues", _QUEUES), Row("Trouble", _TROUBLE)),
    CHOICES,
)
