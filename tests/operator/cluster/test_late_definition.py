"""An operator that is started before its definition is installed works once that is there."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import requests
import yaml
from conftest import PACKAGE

from control_plane.plane import ControlPlane
from kube.api import Api, Object, Refused

Example = Callable[..., Object]
DEFINITIONS = ("apiextensions.k8s.io/v1", "customresourcedefinitions", "")
NAME = "orderservices.orders.platform.dev"
SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")


def test_it_is_not_ready_and_says_why_until_the_definition_comes(
    api: Api,
    own_plane: ControlPlane,
    namespace: str,
    example: Example,
    start_operator: Callable[..., Any],
) -> None:
    assert own_plane
    try:
        _clear(api)
        api.delete(*DEFINITIONS, NAME)
        api.wait(lambda: not api.exists(*DEFINITIONS, NAME))
        operator = start_operator("early")
        url = f"http://127.0.0.1:{operator.admin_port}"
        api.wait(lambda: "not installed" in _text(f"{url}/readyz"))
        assert requests.get(f"{url}/livez", timeout=30).ok
    finally:
        _put_back(api)
    api.apply(example(), namespace)
    api.wait(lambda: len(api.list("apps/v1", "deployments", namespace)) == 4)
    api.wait(lambda: requests.get(f"{url}/readyz", timeout=30).ok)


def _clear(api: Api) -> None:
    """Delete all resources: those with a finalizer would keep the definition for ever, as the
    operators of the files before, which would remove it, have ended.
    """
    for resource in api.list(*SERVICES, ""):
        metadata = resource["metadata"]
        path = api.path(*SERVICES, metadata["namespace"], metadata["name"])
        with suppress(Refused):  # it is gone meanwhile
            api.patch(path, {"metadata": {"finalizers": None}})
            api.delete(*SERVICES, metadata["namespace"], metadata["name"])
    api.wait(lambda: api.list(*SERVICES, "") == [])


def _put_back(api: Api) -> None:
    """Install the definition, which the tests of other files share, and wait until it is served."""
    api.wait(lambda: not _is_terminating(api))
    api.apply(yaml.safe_load((PACKAGE / "crd" / "orderservices.yaml").read_text()))
    api.wait(lambda: _is_established(api))
    api.wait(lambda: api.session.get(api.url + api.path(*SERVICES)).ok)


def _is_terminating(api: Api) -> bool:
    path = api.path(*DEFINITIONS, NAME)
    answer = api.session.get(api.url + path)
    return answer.ok and "deletionTimestamp" in answer.json()["metadata"]


def _is_established(api: Api) -> bool:
    conditions = api.get(*DEFINITIONS, NAME).get("status", {}).get("conditions") or []
    return {"Established": "True"}.items() <= {c["type"]: c["status"] for c in conditions}.items()


def _text(url: str) -> str:
    try:
        return requests.get(url, timeout=30).text
    except requests.ConnectionError:
        return ""
