"""RabbitMQ's management API: publish unreadable messages, count dead letters.

The address carries user, password, and the virtual host as its path.
"""

from typing import Any

import msgspec

from loadtest.target import http


def poison(management: str, queue: str, count: int) -> None:
    """Publish unreadable messages straight into a queue, each of another kind."""
    for number in range(count):
        root, vhost = _split(management)
        http.send(
            "POST",
            f"{root}/api/exchanges/{vhost}/amq.default/publish",
            {
                "routing_key": queue,
                "payload": _PAYLOADS[number % len(_PAYLOADS)],
                "payload_encoding": "string",
                "properties": {"delivery_mode": 2} | _PROPERTIES[number % len(_PROPERTIES)],
            },
        )


_PAYLOADS = ("null", "{", '{"orderId": "one"}', "[]", "\u0000", '{"orderId": 9007199254740991}')
_PROPERTIES: tuple[dict[str, Any], ...] = (
    {},
    {"type": "order.created.v1", "message_id": "not-a-uuid"},
    {"type": "order.unheard_of.v9"},
    {"type": "order.created.v1", "content_type": "text/plain"},
)


def dead_letters(management: str) -> int:
    """Count the messages in all `.dead` queues; taken by looking, for statistics lag behind."""
    root, vhost = _split(management)
    queues = http.get(f"{root}/api/queues/{vhost}?columns=name", list[dict[str, str]])
    names = [queue["name"] for queue in queues if queue["name"].endswith(".dead")]
    return sum(_count(root, vhost, name) for name in names)


def _count(root: str, vhost: str, queue: str) -> int:
    look = {"count": 10_000, "ackmode": "ack_requeue_true", "encoding": "base64", "truncate": 1}
    url = f"{root}/api/queues/{vhost}/{queue}/get"
    return len(msgspec.json.decode(http.send("POST", url, look), type=list[Any]))


def _split(management: str) -> tuple[str, str]:
    root, _, vhost = management.rpartition("/")
    return root, vhost
