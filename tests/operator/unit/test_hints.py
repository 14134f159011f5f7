"""A resource that waits for a pod or a Secret asks seldom for the reason."""

import asyncio
from typing import Any

import msgspec
import pytest

from orderservice_operator.children.manifest import Manifest, Reference
from orderservice_operator.children.migration_job import job_name
from orderservice_operator.control.hints import FIRST_S, LONGEST_S, Hints
from orderservice_operator.resource.key import Key
from orderservice_operator.state.snapshot import Snapshot, take_snapshot

KEY = Key("shop", "minimal")
REFUSED = 'pods "minimal-migrate-x-abcde" is forbidden: exceeded quota'


class Server:
    """The part of a client that is used; `requests` counts how often it was asked for Events."""

    def __init__(self) -> None:
        self.requests, self.messages = 0, [REFUSED]

    async def get(self, _path: str, _parameters: Any = None) -> Manifest:
        self.requests += 1
        return {"items": [{"message": message} for message in self.messages]}


class Secrets:
    """The part of fingerprints that is used."""

    def __init__(self, *problems: str) -> None:
        self._problems = problems

    def missing(self, _service: Any) -> tuple[str, ...]:
        return self._problems


def _waiting(service: Any) -> Snapshot:
    job = {"metadata": {"name": job_name(service), "uid": "j-1"}, "status": {}}
    live = {Reference("batch/v1", "Job", job_name(service)): job}
    return take_snapshot(service, live, frozenset(), {})


class Patience:
    """Passes over one resource, each when it was asked for."""

    def __init__(self, snapshot: Snapshot, *problems: str) -> None:
        self.now, self.server, self.snapshot = 0.0, Server(), snapshot
        self.hints = Hints(self.server, Secrets(*problems), lambda: self.now)  # type: ignore[arg-type] # all that is used
        self.passes = 0
        self.results: list[tuple[str, ...]] = []

    def until(self, end_s: float) -> None:
        while self.now <= end_s:
            self.results.append(asyncio.run(self.hints.reasons(KEY, self.snapshot)))
            self.passes += 1
            self.now += self.hints.next_check_s(KEY)


def test_an_hour_of_waiting_is_a_dozen_requests(make: Any) -> None:
    patience = Patience(_waiting(make()))
    patience.until(3600)
    assert 5 < patience.server.requests < 20
    assert patience.results[-1] == (
        'migration: pods "minimal-migrate-x-*" is forbidden: exceeded quota',
    )


@pytest.mark.parametrize("problems", [(), ("Secret orders does not exist",)])
def test_passes_become_as_rare_as_requests(make: Any, problems: tuple[str, ...]) -> None:
    patience = Patience(_waiting(make()), *problems)
    patience.until(FIRST_S * 3)
    assert patience.passes >= 3
    patience.until(24 * 3600)
    assert patience.passes < 24 * 3600 / LONGEST_S + 20


def test_another_spec_is_looked_at_at_once(make: Any) -> None:
    service = make()
    patience = Patience(_waiting(service))
    patience.until(3600)
    requests = patience.server.requests
    metadata = msgspec.structs.replace(service.metadata, generation=2)
    patience.snapshot = _waiting(msgspec.structs.replace(service, metadata=metadata))
    patience.until(patience.now)
    assert patience.server.requests == requests + 1
    assert patience.hints.next_check_s(KEY) == FIRST_S


def test_a_resource_whose_pods_have_begun_waits_for_nothing(make: Any) -> None:
    patience = Patience(_waiting(make(migrations={"enabled": False})))
    patience.until(FIRST_S)
    assert patience.server.requests == 0
    assert not patience.hints.is_waiting(KEY)
