"""What is known of Secrets: digests, of what a process reads and of nothing else."""

import asyncio
from typing import Any

import msgspec
import pytest

from orderservice_operator.cluster.fingerprints import Fingerprints
from orderservice_operator.errors import NotFound, Transient
from orderservice_operator.manifest import Manifest

DATA = {
    "orders": {"cursorSecret": "Yw=="},
    "orders-database": {"url": "ZA=="},
    "orders-messaging": {"url": "bQ=="},
    "orders-webhook": {"url": "dw==", "secret": "cw=="},
}


class Server:
    """The part of a client that is used; `asked` are the paths it was asked for."""

    def __init__(self, **changed: dict[str, str]) -> None:
        self.data = DATA | {name.replace("_", "-"): entries for name, entries in changed.items()}
        self.asked: list[str] = []
        self.fault: Exception | None = None

    async def get(self, path: str) -> Manifest:
        self.asked.append(path)
        if self.fault:
            raise self.fault
        name = path.rpartition("/")[2]
        if not self.data[name]:
            raise NotFound(name)
        return {"data": self.data[name]}


def _of(server: Server, service: Any, kept_s: float = 60) -> dict[str, str]:
    fingerprints = Fingerprints(server, kept_s)  # type: ignore[arg-type] # all that is used of it
    return asyncio.run(fingerprints.of(service))


def test_only_what_a_process_reads_is_in_its_digest(make: Any) -> None:
    before = _of(Server(), make())
    after = _of(Server(orders_webhook={"url": "dw==", "secret": "eA=="}), make())
    assert {name for name in before if before[name] != after[name]} == {"notifier"}
    assert _of(Server(orders_database={"url": "ZA==", "other": "eA=="}), make()) == before


def test_the_same_content_looks_different_elsewhere(make: Any) -> None:
    service = make()
    metadata = msgspec.structs.replace(service.metadata, uid="u-2")
    other = msgspec.structs.replace(service, metadata=metadata)
    assert not set(_of(Server(), service).values()) & set(_of(Server(), other).values())


@pytest.mark.parametrize("entries", [{}, {"elsewhere": "eA=="}])
def test_a_process_that_lacks_an_entry_has_no_digest(make: Any, entries: dict[str, str]) -> None:
    assert _of(Server(orders_messaging=entries), make()).keys() == {"api"}


def test_a_secret_is_read_by_name_and_once_in_a_while(make: Any) -> None:
    server = Server()
    fingerprints = Fingerprints(server, 60)  # type: ignore[arg-type] # all that is used of it

    async def twice() -> None:
        assert await fingerprints.of(make()) == await fingerprints.of(make())

    asyncio.run(twice())
    root = "/api/v1/namespaces/shop/secrets"
    assert sorted(server.asked) == [f"{root}/{name}" for name in sorted(DATA)]


def test_a_server_that_does_not_answer_is_no_lack_of_a_secret(make: Any) -> None:
    server = Server()
    server.fault = Transient("busy")
    with pytest.raises(Transient):
        _of(server, make())
