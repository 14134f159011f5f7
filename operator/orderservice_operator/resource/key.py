"""The name of a resource in a cluster."""

import msgspec


class Key(msgspec.Struct, frozen=True, gc=False):
    """Names an OrderService, or another object where its kind is known."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
