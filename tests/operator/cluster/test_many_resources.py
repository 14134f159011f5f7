"""Some resources at once; `test_figures.py` measures with many."""

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import crowd
import pytest

from kube.api import Api, Object

Example = Callable[..., Object]
COUNT = 8  # three times as many as are looked at at once, over all places
PLACES = 3


@pytest.fixture(scope="module")
def namespaces(api: Api) -> Iterator[list[str]]:
    """Make namespaces for them: the same names are in each."""
    names = [f"crowd-{number}-{time.monotonic_ns()}" for number in range(PLACES)]
    for name in names:
        crowd.namespace_without_pods(api, name)
    yield names
    for name in names:
        api.delete_all(*crowd.SERVICES, name)
        if os.environ.get("KUBECONFIG"):
            api.delete("v1", "namespaces", "", name)


def test_after_a_burst_in_many_namespaces_nothing_is_written_not_even_after_a_crash(
    api: Api, example: Example, namespaces: list[str], operator: Any
) -> None:
    counters, total = crowd.Counters(operator.admin_port), COUNT * PLACES
    crowd.wait_until(counters.is_ready, within_s=180)
    for namespace in namespaces:
        crowd.apply_all(api, example(), namespace, range(COUNT))
    for namespace in namespaces:
        crowd.wait_until(partial(crowd.all_have, api, namespace, COUNT, "Migrating"), within_s=180)
        services = api.list("v1", "services", namespace)
        assert (
            len(services) == len({service["metadata"]["name"] for service in services}) == 2 * COUNT
        )

    # The status names the quota only once its Event was read, some seconds later.
    for namespace in namespaces:
        crowd.wait_until(partial(_all_name_the_quota, api, namespace), within_s=180)

    # On a busy machine the last status comes late; one that is written for ever fails here.
    crowd.wait_until(partial(_nothing_is_written, counters), within_s=180)

    operator.kill()
    operator.start()
    crowd.wait_until(lambda: counters.looks() >= total, within_s=180)
    time.sleep(1)
    assert counters.writes() == 0


def _nothing_is_written(counters: crowd.Counters) -> bool:
    """Return whether four seconds pass without a write."""
    count_before = counters.writes()
    time.sleep(4)
    return counters.writes() == count_before


def _all_name_the_quota(api: Api, namespace: str) -> bool:
    return all(
        any(
            "exceeded quota" in condition["message"]
            for condition in service["status"]["conditions"]
        )
        for service in api.list(*crowd.SERVICES, namespace)
    )
